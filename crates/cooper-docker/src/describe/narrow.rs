//! Whether an engine runs the 32-bit programs that its processor may run besides its own: 386 on amd64, arm on arm64.
//!
//! Where images are in containerd's store, the builder takes those for the same platform and lists neither, and not every
//! processor and kernel has them. So the builder is given the smallest such program to run: nothing is left of that but an
//! entry of its cache.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::SystemInfo;
use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, SolveRequest};
use bollard_buildkit_proto::pb::{
    Definition, ExecOp, FileAction, FileActionMkFile, FileOp, Input, Meta, Mount, NetMode, Op, OpMetadata, file_action,
    op,
};
use cooper_ports::engine::{EngineDescription, EngineError};
use cooper_types::{Digest, Platform};
use prost::Message as _;

use super::control;
use crate::engine::limited;
use crate::session::random_id;
use crate::wire::{EngineWire, one_line};

const OPERATION: &str = "run a 32-bit program";
/// How long it may take, where the engine is busy with builds.
const LIMIT: Duration = Duration::from_secs(15);
/// Where the program is in its file system.
const PATH: &str = "/narrow";

/// Whether an engine runs the 32-bit programs beside its own.
#[derive(Clone)]
pub(crate) struct NarrowCode {
    architecture: Narrow,
    machine: Machine,
    runs: bool,
}

/// What it is a matter of.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    engine: Option<String>,
    kernel: Option<String>,
}

impl Machine {
    /// By an engine's answer to `GET /info`.
    pub(crate) fn of(info: SystemInfo) -> Self {
        Self { engine: info.id, kernel: info.kernel_version }
    }
}

impl NarrowCode {
    /// What is so of an engine, from before where it was found to run them on the same machine: a no may be a trouble that
    /// passes. None where nothing has to be found out, or nothing could be.
    pub(crate) async fn of(
        wire: &EngineWire,
        engine: &EngineDescription,
        machine: Machine,
        before: Option<&Self>,
    ) -> Option<Self> {
        let architecture = Narrow::beside(&engine.native)?;
        let is_same = |before: &&Self| before.machine == machine && before.architecture == architecture;
        if let Some(before) = before.filter(is_same).filter(|before| before.runs) {
            return Some(before.clone());
        }
        if engine.emulated.iter().any(|platform| platform.architecture() == architecture.name()) {
            return None;
        }
        match limited(OPERATION, LIMIT, Box::pin(runs(wire, architecture))).await {
            Ok(runs) => Some(Self { architecture, machine, runs }),
            Err(error) => {
                tracing::warn!(%error, "no 32-bit platform is offered until the engine is asked again");
                None
            }
        }
    }

    /// What the engine runs for it, if it does. BuildKit makes no difference between variants either.
    pub(crate) fn platforms(&self) -> impl Iterator<Item = Platform> {
        let names: &[&str] = match self.architecture {
            _ if !self.runs => &[],
            Narrow::I386 => &["linux/386"],
            Narrow::Arm => &["linux/arm", "linux/arm/v6", "linux/arm/v7"],
        };
        names.iter().filter_map(|name| Platform::parse(name).ok())
    }
}

/// The 32-bit architecture beside a 64-bit one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Narrow {
    I386,
    Arm,
}

impl Narrow {
    /// What may run beside a native platform.
    fn beside(native: &Platform) -> Option<Self> {
        match (native.os(), native.architecture()) {
            ("linux", "amd64") => Some(Self::I386),
            ("linux", "arm64") => Some(Self::Arm),
            _ => None,
        }
    }

    /// The architecture, as platforms name it.
    fn name(self) -> &'static str {
        match self {
            Self::I386 => "386",
            Self::Arm => "arm",
        }
    }

    /// A program that ends with success at once.
    fn program(self) -> Vec<u8> {
        const BASE: u32 = 0x40_0000;
        const HEADERS: u32 = 52 + 32;
        let (machine, flags, code): (u16, u32, &[u8]) = match self {
            // mov eax, 1 (exit); xor ebx, ebx; int 0x80
            Self::I386 => (3, 0, &[0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80]),
            // mov r0, 0; mov r7, 1 (exit); svc 0. Without the flag of its calling convention, 64-bit kernels refuse it.
            Self::Arm => (40, 0x0500_0000, &[0, 0, 0xa0, 0xe3, 1, 0x70, 0xa0, 0xe3, 0, 0, 0, 0xef]),
        };
        let size = HEADERS + u32::try_from(code.len()).expect("a handful of bytes");
        let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend([2, machine].iter().flat_map(|half| half.to_le_bytes()));
        file.extend([1, BASE + HEADERS, 52, 0, flags].iter().flat_map(|word: &u32| word.to_le_bytes()));
        file.extend([52_u16, 32, 1, 40, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
        // One segment, which is the whole file, to be read and executed.
        file.extend([1, 0, BASE, BASE, size, size, 5, 0x1000].iter().flat_map(|word: &u32| word.to_le_bytes()));
        file.extend_from_slice(code);
        file
    }
}

/// Has the builder run a program of this architecture.
async fn runs(wire: &EngineWire, narrow: Narrow) -> Result<bool, EngineError> {
    match control(wire, OPERATION).await?.solve(request(narrow.program())).await {
        Ok(_) => Ok(true),
        Err(status) if is_verdict(status.message()) => Ok(false),
        Err(status) => Err(EngineError::Refused { operation: OPERATION, message: one_line(status.message()) }),
    }
}

/// Whether this failure says that the program does not run; anything else says nothing of it.
fn is_verdict(message: &str) -> bool {
    message.contains("did not complete successfully: exit code: ")
}

/// A file system of one program, and its run.
fn request(program: Vec<u8>) -> SolveRequest {
    let make = FileActionMkFile { path: PATH.to_owned(), mode: 0o755, data: program, owner: None, timestamp: -1 };
    let make =
        FileAction { input: -1, secondary_input: -1, output: 0, action: Some(file_action::Action::Mkfile(make)) };
    let make = Op { op: Some(op::Op::File(FileOp { actions: vec![make] })), ..Op::default() }.encode_to_vec();
    let run = ExecOp {
        meta: Some(Meta { args: vec![PATH.to_owned()], cwd: "/".to_owned(), ..Meta::default() }),
        mounts: vec![Mount { dest: "/".to_owned(), ..Mount::default() }],
        network: NetMode::None.into(),
        ..ExecOp::default()
    };
    let run = Op { inputs: vec![output_of(&make)], op: Some(op::Op::Exec(run)), ..Op::default() }.encode_to_vec();
    let result = Op { inputs: vec![output_of(&run)], ..Op::default() }.encode_to_vec();
    // What ran yesterday says nothing of today.
    let afresh = OpMetadata { ignore_cache: true, ..OpMetadata::default() };
    let metadata = HashMap::from([(Digest::sha256(&run).to_string(), afresh)]);
    SolveRequest {
        r#ref: random_id(),
        definition: Some(Definition { def: vec![make, run, result], metadata, source: None }),
        cache: Some(CacheOptions::default()),
        // Users find no build of ours among theirs.
        internal: true,
        ..SolveRequest::default()
    }
}

fn output_of(operation: &[u8]) -> Input {
    Input { digest: Digest::sha256(operation).to_string(), index: 0 }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_programs_run_on_their_processors() {
        let folder = tempfile::tempdir().expect("a folder");
        for (narrow, emulator) in [(Narrow::I386, "qemu-i386-static"), (Narrow::Arm, "qemu-arm-static")] {
            let path = folder.path().join(narrow.name());
            std::fs::write(&path, narrow.program()).expect("a file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a program");
            let ended = std::process::Command::new(emulator).arg(&path).status();
            let ended = ended.unwrap_or_else(|error| panic!("`cargo xtask test` installs {emulator}: {error}"));
            assert!(ended.success(), "{narrow:?}: {ended}");
        }
    }

    #[test]
    fn only_its_end_says_that_a_program_does_not_run() {
        assert!(is_verdict("process \"/narrow\" did not complete successfully: exit code: 1"));
        assert!(!is_verdict("failed to solve: no space left on device"));
        assert!(!is_verdict("process \"/narrow\" did not complete successfully: context canceled"));
    }
}
