//! Archives that are contexts, and archives that are not: each refusal names the entry and the reason.

#![expect(clippy::unwrap_used, reason = "a panic is how a test's helper fails")]

use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::AtomicBool;

use cooper_ports::context_tree::{ContextTree, EntryKind};
use cooper_source::{UnpackError, UnpackLimits, unpack};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::{EntryType, Header};

/// Writes tar blocks without any of a tar library's checks.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn entry(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, "", content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, b"")
    }

    fn hard(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, b"")
    }

    fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let mut length = rest.len() + 1;
            while length.to_string().len() + rest.len() != length {
                length += 1;
            }
            text.push_str(&format!("{length}{rest}"));
        }
        self.entry(EntryType::XHeader, "PaxHeaders/x", "", text.as_bytes())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// An xz file of nothing whose block header asks for the largest dictionary; headers' checksums are right.
const GREEDY_XZ: &[u8] = b"\xfd\x37\x7a\x58\x5a\x00\x00\x01\x69\x22\xde\x36\x02\x00\x21\x01\x28\x00\x00\x00\xe6\xa0\x11\xb3\x01\x00\x00\x61\x00";

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn try_with(bytes: &[u8], limits: &UnpackLimits) -> Result<ContextTree, UnpackError> {
    unpack(Cursor::new(bytes), tempfile::tempfile().unwrap(), limits, &AtomicBool::new(false))
}

fn try_unpack(bytes: &[u8]) -> Result<ContextTree, UnpackError> {
    try_with(bytes, &UnpackLimits::default())
}

/// The tree as lines: `d path`, `f path=content`, `l path>target`.
fn lines(tree: &ContextTree) -> Vec<String> {
    let show = |entry: &cooper_ports::context_tree::ContextEntry| match &entry.kind {
        EntryKind::Directory => format!("d {}", entry.path),
        EntryKind::Symlink { target } => format!("l {}>{target}", entry.path),
        EntryKind::File { offset, size } => {
            let mut content = vec![0; *size as usize];
            tree.contents().read_exact_at(&mut content, *offset).unwrap();
            format!("f {}={}", entry.path, String::from_utf8_lossy(&content))
        }
    };
    tree.entries().iter().map(show).collect()
}

#[test]
fn takes_what_a_context_is() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let gnu_long = Raw::default().entry(EntryType::GNULongName, "././@LongLink", "", format!("{long}\0").as_bytes());
    let gnu_link = Raw::default().entry(EntryType::GNULongLink, "././@LongLink", "", "t".repeat(200).as_bytes());
    let table: Vec<(&str, Raw, Vec<String>)> = vec![
        ("nothing", Raw::default(), vec![]),
        (
            "az: root first, dot names, the last duplicate wins",
            Raw::default()
                .dir("/")
                .dir("./")
                .file("./Dockerfile", "old")
                .dir("a/")
                .file("a/x", "1")
                .file("Dockerfile", "new"),
            vec!["f Dockerfile=new".into(), "d a".into(), "f a/x=1".into()],
        ),
        (
            "implied directories, doubled slashes",
            Raw::default().file("a//b/./c", "x"),
            vec!["d a".into(), "d a/b".into(), "f a/b/c=x".into()],
        ),
        (
            "children in byte order of parts",
            Raw::default().file("a.b", "").file("a/z", "").file("a-b", ""),
            vec!["d a".into(), "f a/z=".into(), "f a-b=".into(), "f a.b=".into()],
        ),
        (
            "links kept as text",
            Raw::default().link("l", "../../etc/passwd").link("m", "/etc/shadow").link("n", "."),
            vec!["l l>../../etc/passwd".into(), "l m>/etc/shadow".into(), "l n>.".into()],
        ),
        (
            "hard links share, also with links",
            Raw::default().file("a", "x").hard("b", "./a").link("s", "a").hard("t", "s").file("a", "y"),
            vec!["f a=y".into(), "f b=x".into(), "l s>a".into(), "l t>a".into()],
        ),
        (
            "a directory replaces a file, and the other way round",
            Raw::default().file("a", "x").dir("a").file("a/b", "y").dir("c").file("c", "z"),
            vec!["d a".into(), "f a/b=y".into(), "f c=z".into()],
        ),
        (
            "long names of GNU tar",
            Raw(gnu_long.0).file("short", "x"),
            vec![format!("d {}", "d".repeat(120)), format!("f {long}=x")],
        ),
        ("long targets of GNU tar", Raw(gnu_link.0).link("l", "short"), vec![format!("l l>{}", "t".repeat(200))]),
        (
            "PAX names, sizes and targets, and headers for all",
            Raw::default()
                .entry(EntryType::XGlobalHeader, "pax_global_header", "", b"17 comment=abcde\n")
                .pax(&[("path", &long), ("mtime", "1700000001.5"), ("SCHILY.xattr.user.x", "y=z")])
                .file("short", "x")
                .pax(&[("linkpath", "ü")])
                .link("l", "short"),
            vec![format!("d {}", "d".repeat(120)), format!("f {long}=x"), "l l>ü".into()],
        ),
        ("old directories", Raw::default().entry(EntryType::Regular, "d/", "", b""), vec!["d d".into()]),
        ("names that are no UTF-8 problem", Raw::default().file("naïve \n☺\\x", "1"), vec!["f naïve \n☺\\x=1".into()]),
    ];
    for (name, raw, mut expected) in table {
        expected.sort_by(|a, b| a[2..].split(['/', '=', '>']).cmp(b[2..].split(['/', '=', '>'])));
        let bytes = raw.end();
        for bytes in [
            gzip(&bytes),
            bzip2(&bytes),
            xz(&bytes),
            zstd(&bytes),
            // Several frames in a row, one of them to be passed over, are one file.
            [zstd(&bytes[..700]), b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(&bytes[700..])].concat(),
            bytes,
        ] {
            let tree = try_unpack(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(lines(&tree), expected, "{name}");
        }
    }
}

#[test]
fn refuses_what_no_context_is() {
    let special = |kind| Raw::default().entry(kind, "dev/x", "", b"");
    let table: Vec<(Raw, &str)> = vec![
        (Raw::default().file("../x", ""), "context entry `../x` leads out of the context with `..`"),
        (Raw::default().file("a/../../x", ""), "context entry `a/../../x` leads out of the context with `..`"),
        (Raw::default().file("a/..", ""), "context entry `a/..` leads out of the context with `..`"),
        (Raw::default().file("/etc/passwd", ""), "context entry `/etc/passwd` is absolute; names"),
        (Raw::default().dir("//"), "context entry `//` is absolute"),
        (Raw::default().file("", ""), "context entry `` is empty"),
        (Raw::default().pax(&[("path", "a\0b")]).file("x", ""), "context entry `a\\0b` holds a NUL character"),
        (Raw::default().pax(&[("path", &"p/".repeat(3000))]).file("x", ""), "is too long"),
        (Raw::default().pax(&[("path", &"p".repeat(256))]).file("x", ""), "is too long"),
        (Raw::default().file(".", "x"), "context entry `.` stands for the context's root and is no directory"),
        (Raw::default().link("/", "x"), "context entry `/` stands for the context's root and is no directory"),
        (special(EntryType::Char), "context entry `dev/x` is a device"),
        (special(EntryType::Block), "context entry `dev/x` is a device"),
        (special(EntryType::Fifo), "context entry `dev/x` is a named pipe"),
        (special(EntryType::GNUSparse), "context entry `dev/x` is a sparse file"),
        (special(EntryType::new(b'V')), "context entry `dev/x` is an entry of an unknown type"),
        (Raw::default().hard("a", "missing"), "hard link to `missing`, which is no earlier file"),
        (Raw::default().hard("a", "../x"), "hard link to `../x`, which is no earlier file"),
        (Raw::default().dir("d").hard("a", "d"), "hard link to `d`, which is no earlier file"),
        (Raw::default().hard("a", "b").file("b", ""), "hard link to `b`, which is no earlier file"),
        (Raw::default().link("l", ""), "target of the context's link `l` is empty"),
        (Raw::default().pax(&[("linkpath", "a\0b")]).link("l", "x"), "link `l` holds a NUL"),
        (
            Raw::default().link("l", "/etc").file("l/passwd", "x"),
            "`l/passwd` lies inside `l`, which is a symbolic link",
        ),
        (Raw::default().file("l/a/b", "x").link("l", "."), "`l/a/b` lies inside `l`, which is a symbolic link"),
        (Raw::default().file("f", "x").file("f/g/h", "y"), "`f/g/h` lies inside `f`, which is a file"),
        (Raw::default().pax(&[("size", "x")]).file("a", ""), "has a header with a bad size"),
        (Raw::default().entry(EntryType::XHeader, "p", "", b"99 path=x\n").file("a", ""), "can't be read"),
        (Raw::default().entry(EntryType::XHeader, "p", "", b"path=x\n").file("a", ""), "can't be read"),
        (Raw::default().entry(EntryType::XHeader, "p", "", b"4 x\n").file("a", ""), "can't be read"),
        (Raw::default().pax(&[("GNU.sparse.major", "1")]).file("a", ""), "has a sparse file"),
        (Raw::default().entry(EntryType::GNULongName, "L", "", &[b'x'; 2 << 20]).file("a", ""), "that is too long"),
    ];
    for (raw, message) in table {
        let bytes = raw.end();
        let error = try_unpack(&gzip(&bytes)).expect_err(message);
        assert!(error.to_string().contains(message), "{error} is not {message}");
        assert!(error.is_in_archive());
        assert!(!error.to_string().contains('\n') && error.to_string().len() < 500);
    }
}

#[test]
fn refuses_what_no_archive_is() {
    let whole = Raw::default().file("a", "x").file("b", &"y".repeat(5_000)).end();
    let zipped = gzip(&whole);
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 9].to_vec();
    let mut damaged = zipped.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let mut bad_sum = zipped.clone();
    let crc = bad_sum.len() - 8;
    bad_sum[crc] ^= 1;
    let mut bad_header = whole.clone();
    bad_header[1024 + 5] ^= 1;
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "the context archive is empty"),
        ("text", b"FROM scratch\n".to_vec(), "is not a tar archive"),
        ("long text", b"FROM scratch\n".repeat(100), "is not a tar archive"),
        ("gzipped text", gzip(b"FROM scratch\n"), "is not a tar archive"),
        ("gzipped nothing", gzip(b""), "is not a tar archive"),
        ("bzip2's head alone", b"BZh91AY&SY".to_vec(), "is cut off at its beginning"),
        ("xz's head alone", b"\xfd7zXZ\0\0".to_vec(), "is cut off at its beginning"),
        ("zstd's head alone", b"\x28\xb5\x2f\xfd".to_vec(), "is cut off at its beginning"),
        ("no zstd", b"\x28\xb5\x2f\xfd........".to_vec(), "the context archive"),
        // A dictionary of 4 GiB, which no file of this size needs.
        ("xz that wants memory", GREEDY_XZ.to_vec(), "compressed data are damaged at its beginning"),
        ("zip", b"PK\x03\x04....".to_vec(), "compressed with zip"),
        ("gzip's head alone", zipped[..4].to_vec(), "is cut off at its beginning"),
        ("cut gzip", zipped[..zipped.len() - 1].to_vec(), "is cut off in or after entry `b`"),
        ("cut in a content", whole[..3000].to_vec(), "is cut off in or after entry `b`"),
        ("cut in a padding", whole[..700].to_vec(), "is cut off in or after entry `a`"),
        ("cut in a header", whole[..1300].to_vec(), "is cut off in or after entry `a`"),
        ("no end mark", whole[..1024].to_vec(), "is cut off in or after entry `a`"),
        ("cut bzip2", cut(bzip2(&whole)), "is cut off"),
        ("cut xz", cut(xz(&whole)), "is cut off"),
        ("cut zstd", cut(zstd(&whole)), "is cut off"),
        ("rubbish behind zstd", [zstd(&whole), b"xxxxxxxxxx".to_vec()].concat(), "damaged"),
        ("damaged gzip", damaged, "the context"),
        ("wrong checksum of gzip", bad_sum, "compressed data are damaged in or after entry `b`"),
        ("rubbish behind gzip", [zipped.clone(), b"xxxxxxxxxx".to_vec()].concat(), "damaged"),
        ("damaged header", bad_header, "has a damaged header in or after entry `a`"),
    ];
    for (name, bytes, message) in table {
        let error = try_unpack(&bytes).expect_err(name);
        assert!(error.to_string().contains(message), "{name}: {error}");
        assert!(error.is_in_archive(), "{name}");
    }
}

#[test]
fn limits_hold() {
    let small = UnpackLimits {
        entries: 5,
        bytes: 100_000,
        ratio: 10,
        ratio_floor: 50_000,
        path_len: 100,
        paths_len: 60,
        metadata_len: 1000,
    };
    let many = (0..6).fold(Raw::default(), |raw, n| raw.file(&format!("f{n}"), "")).end();
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("entries", many, "the context has more than 5 entries"),
        ("duplicates count", (0..6).fold(Raw::default(), |raw, _| raw.file("f", "")).end(), "more than 5 entries"),
        ("implied entries count", Raw::default().file("a/b/c/d/e/f", "").end(), "more than 5 entries"),
        ("names", Raw::default().file(&"a".repeat(61), "").end(), "the names in the context are longer than 60 bytes"),
        ("bytes", Raw::default().file("a", &"x".repeat(100_000)).end(), "larger than 100000 bytes"),
        ("bytes behind the end mark", [Raw::default().end(), vec![0; 100_000]].concat(), "larger than 100000 bytes"),
        ("ratio of bzip2", bzip2(&Raw::default().file("a", &"\0".repeat(80_000)).end()), "more than 10 times its size"),
        ("ratio of xz", xz(&Raw::default().file("a", &"\0".repeat(80_000)).end()), "more than 10 times its size"),
        ("ratio of zstd", zstd(&Raw::default().file("a", &"\0".repeat(80_000)).end()), "more than 10 times its size"),
        ("ratio", gzip(&Raw::default().file("a", &"\0".repeat(80_000)).end()), "more than 10 times its size"),
    ];
    for (name, bytes, message) in table {
        let error = try_with(&bytes, &small).expect_err(name);
        assert!(error.to_string().contains(message), "{name}: {error}");
    }
    let plain = Raw::default().file("a", &"\0".repeat(80_000)).end();
    assert!(try_with(&plain, &small).is_ok(), "a plain archive has no ratio to break");
}

#[test]
fn an_edit_of_the_same_size_and_second_shows_in_the_time() {
    let time = |content: &str| {
        let tree = try_unpack(&Raw::default().file("a", content).hard("b", "a").dir("d").end()).unwrap();
        assert_eq!(tree.get("a").unwrap().mtime_ns, tree.get("b").unwrap().mtime_ns);
        assert_eq!(tree.get("d").unwrap().mtime_ns, 1_700_000_000_000_000_000);
        tree.get("a").unwrap().mtime_ns
    };
    assert_eq!(time("one"), time("one"));
    assert_ne!(time("one"), time("two"));
    assert_eq!(time("one") / 1_000_000_000, 1_700_000_000);
    // The first eight bytes of sha256("one"), big-endian, modulo 10^9.
    assert_eq!(time("one") % 1_000_000_000, (0x7692_c3ad_3540_bb80_u64 % 1_000_000_000) as i64);
}

#[test]
fn strange_times_and_modes_become_usable() {
    let bytes = Raw::default()
        .pax(&[("mtime", "-5")])
        .file("past", "")
        .pax(&[("mtime", "99999999999999999999")])
        .file("far", "")
        .end();
    let tree = try_unpack(&bytes).unwrap();
    for name in ["past", "far"] {
        assert_eq!(tree.get(name).unwrap().mtime_ns / 1_000_000_000, 0, "{name}");
    }
}

/// A connection that breaks after some bytes.
struct Breaks(Cursor<Vec<u8>>);

impl Read for Breaks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            read => Ok(read),
        }
    }
}

#[test]
fn a_broken_connection_is_not_the_archives_fault() {
    let whole = gzip(&Raw::default().file("a", "x").end());
    let half = Cursor::new(whole[..whole.len() / 2].to_vec());
    let error = unpack(Breaks(half), tempfile::tempfile().unwrap(), &UnpackLimits::default(), &AtomicBool::new(false));
    let error = error.expect_err("the connection breaks");
    assert!(matches!(error, UnpackError::Read { .. }) && !error.is_in_archive(), "{error}");
}

#[test]
fn a_full_disk_is_not_the_archives_fault() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let bytes = Raw::default().file("a", &"x".repeat(3 << 20)).end();
    let error = unpack(Cursor::new(bytes), full, &UnpackLimits::default(), &AtomicBool::new(false));
    let error = error.expect_err("nothing can be written there");
    assert!(matches!(error, UnpackError::Spool { .. }) && !error.is_in_archive(), "{error}");
}

#[test]
fn cancels() {
    let bytes = Raw::default().file("a", "x").end();
    let cancelled = AtomicBool::new(true);
    let result = unpack(Cursor::new(bytes), tempfile::tempfile().unwrap(), &UnpackLimits::default(), &cancelled);
    assert!(matches!(result, Err(UnpackError::Cancelled)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = try_unpack(&bytes);
        let _ = try_unpack(&gzip(&bytes));
    }

    #[test]
    fn flipped_bits_never_panic(
        flips in proptest::collection::vec((0_usize..6000, any::<u8>()), 1..20),
        fix_sums in any::<bool>(),
    ) {
        let mut bytes = Raw::default()
            .dir("/")
            .pax(&[("path", "p/q"), ("mtime", "1.5")])
            .file("x", "content")
            .entry(EntryType::GNULongName, "L", "", b"long/name\0")
            .hard("h", "p/q")
            .link("l", "t")
            .end();
        let length = bytes.len();
        for (at, byte) in flips {
            bytes[at % length] = byte;
        }
        if fix_sums {
            // So that the flips reach what is behind the checksum.
            for block in bytes.chunks_mut(512) {
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(block);
                if block.iter().any(|byte| *byte != 0) {
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
        }
        if let Ok(tree) = try_unpack(&bytes) {
            for entry in tree.entries() {
                prop_assert!(!entry.path.starts_with('/') && entry.path.split('/').all(|p| !matches!(p, "" | "." | "..")));
                if let Some((above, _)) = entry.path.rsplit_once('/') {
                    prop_assert_eq!(&tree.get(above).unwrap().kind, &EntryKind::Directory);
                }
            }
        }
    }
}
