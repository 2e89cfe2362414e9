"""The output folder, local or in an object store: files, published runs and look-ups in them."""
