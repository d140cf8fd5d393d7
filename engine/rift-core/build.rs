//! Compiles `spec/rift.proto` without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=spec/rift.proto");
    let descriptors = protox::compile(["spec/rift.proto"], ["spec"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
