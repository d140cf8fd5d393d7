//! Builds the C shims of the optional backends. The default build compiles nothing here.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=shim");
    if env::var_os("CARGO_FEATURE_X264").is_some() {
        shim("x264", "shim/x264_shim.c", &["x264"], "libx264-dev");
    }
    if env::var_os("CARGO_FEATURE_LIBAVCODEC").is_some() {
        shim("avcodec", "shim/avcodec_shim.c", &["libavcodec", "libavutil"], "libavcodec-dev");
    }
}

/// Compiles one shim and links the libraries that pkg-config knows it by.
fn shim(name: &str, source: &str, libraries: &[&str], package: &str) {
    let mut build = cc::Build::new();
    build.file(source).std("c11").warnings(true).extra_warnings(true);
    let flags = pkg_config(libraries, package);
    for flag in flags.split_whitespace() {
        if let Some(path) = flag.strip_prefix("-I") {
            build.include(path);
        }
    }
    build.compile(&format!("wavry_{name}_shim"));
    // After the shim, so that the linker sees who needs them.
    for flag in flags.split_whitespace() {
        if let Some(path) = flag.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={path}");
        } else if let Some(library) = flag.strip_prefix("-l") {
            println!("cargo:rustc-link-lib={library}");
        }
    }
}

fn pkg_config(libraries: &[&str], package: &str) -> String {
    let output = Command::new("pkg-config").args(["--cflags", "--libs"]).args(libraries).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(_) => {
            panic!("pkg-config does not know {libraries:?}: install {package}, or build without the feature")
        }
        Err(error) => panic!("pkg-config cannot be run ({error}): install pkg-config and {package}"),
    }
}
