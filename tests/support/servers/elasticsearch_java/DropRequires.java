import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.ModuleVisitor;
import org.objectweb.asm.Opcodes;

/**
 * {@code DropRequires JAR MODULE...} takes the modules out of the {@code requires} of the jar's module-info.
 *
 * Elasticsearch 9's entitlement module requires jdk.jdi and jdk.jlink, development tools that a small Java runtime
 * does not hold, and a missing required module keeps the server from starting at all.
 */
public class DropRequires {
    public static void main(String[] args) throws Exception {
        List<String> dropped = List.of(args).subList(1, args.length);
        try (FileSystem jar = FileSystems.newFileSystem(Path.of(args[0]))) {
            Path info = jar.getPath("module-info.class");
            ClassWriter writer = new ClassWriter(0);
            new ClassReader(Files.readAllBytes(info)).accept(new ClassVisitor(Opcodes.ASM9, writer) {
                @Override
                public ModuleVisitor visitModule(String name, int access, String version) {
                    return new ModuleVisitor(Opcodes.ASM9, super.visitModule(name, access, version)) {
                        @Override
                        public void visitRequire(String module, int requireAccess, String requireVersion) {
                            if (!dropped.contains(module)) {
                                super.visitRequire(module, requireAccess, requireVersion);
                            }
                        }
                    };
                }
            }, 0);
            Files.write(info, writer.toByteArray());
        }
    }
}
