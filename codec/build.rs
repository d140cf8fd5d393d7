//! Builds the C shims of the optional backends. The default build compiles nothing here.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
