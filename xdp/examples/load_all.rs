//! Loads every eBPF program of this crate, which makes the running kernel verify it, and says what each came to.
//! `tools/vm` runs it on the oldest kernel that is supported. Needs root.

use std::process::ExitCode;

use libbpf_rs::ObjectBuilder;
use wavry_xdp::program::OBJECTS;

fn main() -> ExitCode {
    let mut refused = 0;
    for (name, object) in OBJECTS {
        let loaded = ObjectBuilder::default()
            .name(name)
            .and_then(|builder| builder.open_memory(object))
            .and_then(libbpf_rs::OpenObject::load);
        match loaded {
            Ok(object) => {
                for program in object.progs() {
                    let name = program.name().to_string_lossy().into_owned();
                    println!("{name}: verified, {} instructions", program.insn_cnt());
                }
            }
            Err(error) => {
                println!("{name}: refused: {error}");
                refused += 1;
            }
        }
    }
    if OBJECTS.is_empty() || refused > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
