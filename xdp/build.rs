//! Compiles every `src/bpf/NAME.bpf.c` with clang and writes its skeleton to `$OUT_DIR/NAME.skel.rs`, and a list of
//! all objects to `$OUT_DIR/objects.rs`.
//!
//! No `vmlinux.h` is needed: the programs read packets and `struct xdp_md`, whose accesses the kernel rewrites
//! itself, and never a structure inside the kernel. So the stable headers (`linux/*.h`) are enough and there is
//! nothing whose layout could differ between the kernel that it was built on and the one that it runs on. The
//! objects carry BTF all the same, which libbpf needs for the maps and would use for relocations (CO-RE).

use std::env;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

const SOURCES: &str = "src/bpf";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={SOURCES}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut list = String::from("&[");
    for source in sources() {
        let name = name_of(&source);
        let object = out.join(format!("{name}.bpf.o"));
        list.push_str(&format!("({name:?}, include_bytes!({object:?})),"));
        SkeletonBuilder::new()
            .source(&source)
            .obj(&object)
            .clang_args(clang_args())
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .unwrap_or_else(|error| {
                panic!(
                    "{} was not built: {error:#}\n\
                     It needs the packages clang, libelf-dev, zlib1g-dev and linux-libc-dev (Debian, Ubuntu).",
                    source.display()
                )
            });
    }
    list.push(']');
    std::fs::write(out.join("objects.rs"), list).expect("OUT_DIR is writable");
}

/// The programs, in an order that does not depend on the file system.
fn sources() -> Vec<PathBuf> {
    let mut sources: Vec<PathBuf> = std::fs::read_dir(SOURCES)
        .unwrap_or_else(|error| panic!("{SOURCES} cannot be read: {error}"))
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.to_string_lossy().ends_with(".bpf.c"))
        .collect();
    sources.sort();
    sources
}

fn name_of(source: &Path) -> String {
    let file = source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    file.trim_end_matches(".bpf.c").to_owned()
}

fn clang_args() -> Vec<String> {
    // With `-target bpf` clang does not look where Debian keeps `asm/types.h`.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
    // x86 shows its stores in their order, so a lock needs no atomic instruction to be released.
    let order = (arch == "x86_64").then(|| "-DTOTAL_STORE_ORDER".to_owned());
    let arguments = vec![
        format!("-I/usr/include/{arch}-linux-gnu"),
        format!("-I{SOURCES}"),
        // Instructions that every kernel from 5.1 on verifies; later sets are not worth a newer kernel.
        "-mcpu=v3".to_owned(),
        "-Wall".to_owned(),
        "-Wextra".to_owned(),
        "-Werror".to_owned(),
    ];
    arguments.into_iter().chain(order).collect()
}
