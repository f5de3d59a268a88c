//! Foreign processors: their emulation by the kernel, and programs for them.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::outcome::run_to_end;

/// How long a mount may take.
const MOUNT: Duration = Duration::from_secs(20);
/// Where the kernel is told of foreign programs.
const REGISTRY: &str = "/proc/sys/fs/binfmt_misc";
/// Static, so that it works inside any image.
const EMULATOR: &str = "/usr/bin/qemu-aarch64-static";

/// One test at a time has the kernel's emulation in its hands.
static ALONE: Mutex<()> = Mutex::new(());

/// Keeps other tests from registering emulation.
pub struct EmulationTurn(#[expect(dead_code, reason = "it is held")] MutexGuard<'static, ()>);

impl EmulationTurn {
    /// Waits for its turn.
    pub fn wait() -> Self {
        Self(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The emulation of linux/arm64, for as long as this lives, if the machine does not have it anyway.
pub struct Emulation {
    is_ours: bool,
    mounted: bool,
}

impl Emulation {
    const NAME: &str = "cooper-test-aarch64";

    /// Whether this machine emulates it anyway.
    pub fn is_of_machine() -> bool {
        Path::new(REGISTRY).join("qemu-aarch64").exists()
    }

    /// Tells the kernel.
    #[track_caller]
    pub fn register(_turn: &EmulationTurn) -> Self {
        assert!(Path::new(EMULATOR).exists(), "`cargo xtask test` installs {EMULATOR}");
        let registry = Path::new(REGISTRY);
        let mounted = !registry.join("register").exists();
        if mounted {
            let mut mount = Command::new("mount");
            run_to_end(mount.args(["-t", "binfmt_misc", "binfmt_misc", REGISTRY]), MOUNT).ok();
        }
        let is_ours = !Self::is_of_machine();
        if is_ours {
            // Programs for this processor by their first bytes; F opens the emulator now, not inside the container.
            let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
            let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
            let line = format!(":{}:M::{magic}:{mask}:{EMULATOR}:F", Self::NAME);
            std::fs::write(registry.join("register"), line).expect("register an emulator");
        }
        Self { is_ours, mounted }
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = std::fs::write(Path::new(REGISTRY).join(Self::NAME), "-1");
        }
        if self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(REGISTRY).status();
        }
    }
}

/// The smallest program for linux/arm64 that says something: no such program has to be found for the test.
pub fn arm64_program(says: &str) -> Vec<u8> {
    let code = [
        0xd280_0020,                            // mov x0, 1
        0x1000_00e1,                            // adr x1, the text behind the code
        0xd280_0002 | (says.len() as u32) << 5, // mov x2, its length
        0xd280_0808,                            // mov x8, 64 (write)
        0xd400_0001,                            // svc 0
        0xd280_0000,                            // mov x0, 0
        0xd280_0ba8,                            // mov x8, 93 (exit)
        0xd400_0001_u32,                        // svc 0
    ];
    program(183, &code.map(u32::to_le_bytes).concat(), says)
}

/// The same for linux/amd64.
pub fn amd64_program(says: &str) -> Vec<u8> {
    let length = (says.len() as u32).to_le_bytes();
    let code = [
        &[0xb8, 1, 0, 0, 0][..],          // mov eax, 1 (write)
        &[0xbf, 1, 0, 0, 0],              // mov edi, 1
        &[0x48, 0x8d, 0x35, 16, 0, 0, 0], // lea rsi, the text behind the code
        &[0xba],                          // mov edx, its length
        &length,
        &[0x0f, 0x05],        // syscall
        &[0xb8, 60, 0, 0, 0], // mov eax, 60 (exit)
        &[0x31, 0xff],        // xor edi, edi
        &[0x0f, 0x05],        // syscall
    ];
    program(62, &code.concat(), says)
}

/// An executable of one segment for a processor, by its number in ELF.
fn program(machine: u16, code: &[u8], says: &str) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64 + says.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // An executable, and where its parts are.
    file.extend([2_u16, machine].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend([BASE + HEADERS, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 1, 64, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    // One segment, which is the whole file, to be read and executed.
    file.extend([1_u32, 5].iter().flat_map(|half| half.to_le_bytes()));
    file.extend([0, BASE, BASE, size, size, 0x1000].iter().flat_map(|word: &u64| word.to_le_bytes()));
    file.extend_from_slice(code);
    file.extend(says.as_bytes());
    file
}
