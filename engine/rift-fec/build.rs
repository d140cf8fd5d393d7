//! Finds ISA-L, which Debian and Ubuntu have as a shared library.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    let found =
        Command::new("pkg-config").args(["--libs-only-L", "--atleast-version=2.16", "libisal"]).output();
    match found {
        Ok(output) if output.status.success() => {
            let flags = String::from_utf8_lossy(&output.stdout);
            for path in flags.split_whitespace().filter_map(|flag| flag.strip_prefix("-L")) {
                println!("cargo::rustc-link-search=native={path}");
            }
            println!("cargo::rustc-link-lib=dylib=isal");
        }
        Ok(_) => println!("cargo::error=ISA-L was not found: apt-get install libisal-dev"),
        Err(error) => println!(
            "cargo::error=pkg-config could not be run ({error}), so ISA-L cannot be found: \
             apt-get install pkg-config libisal-dev"
        ),
    }
}
