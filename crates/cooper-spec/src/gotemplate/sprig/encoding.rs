//! Base 64 and 32, and checksums.

use sha1::Sha1;
use sha2::Sha256;

use crate::gotemplate::error::Outcome;
use crate::gotemplate::function::{Args, Function, exact};
use crate::gotemplate::print;
use crate::gotemplate::value::Val;

pub(super) const FUNCTIONS: &[Function] = &[
    // ACR's own: nothing is an empty text, and what is no text is encoded as it shows itself.
    exact("b64enc", 1, |heap, args| {
        let text = match args.get(0) {
            Val::Nil => String::new(),
            value => print::shown(heap, value)?,
        };
        Ok(Val::text(&encode(text.as_bytes(), BASE64)))
    }),
    exact("b64dec", 1, |_, args| decode(args, BASE64)),
    exact("b32enc", 1, |_, args| Ok(Val::text(&encode(args.text(0)?.as_bytes(), BASE32)))),
    exact("b32dec", 1, |_, args| decode(args, BASE32)),
    exact("sha1sum", 1, |_, args| Ok(Val::text(&hex(&<Sha1 as sha1::Digest>::digest(args.text(0)?))))),
    exact("sha256sum", 1, |_, args| Ok(Val::text(&hex(&<Sha256 as sha2::Digest>::digest(args.text(0)?))))),
    exact("adler32sum", 1, |_, args| Ok(Val::text(&adler32(args.text(0)?.as_bytes()).to_string()))),
];

/// An alphabet of 2ⁿ characters, and how many of them make a whole group.
type Alphabet = (&'static [u8], u32, usize);

const BASE64: Alphabet = (b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 6, 4);
const BASE32: Alphabet = (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 5, 8);

fn encode(bytes: &[u8], (alphabet, bits, group): Alphabet) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    let (mut held, mut count) = (0u32, 0u32);
    let digit = |value: u32| char::from(alphabet[(value & ((1 << bits) - 1)) as usize]);
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        count += 8;
        while count >= bits {
            count -= bits;
            text.push(digit(held >> count));
        }
        held &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(digit(held << (bits - count)));
    }
    while !text.len().is_multiple_of(group) {
        text.push('=');
    }
    text
}

/// What was encoded, if it is a text. Line ends in between are nothing.
fn decode(args: &Args<'_>, (alphabet, bits, group): Alphabet) -> Outcome<Val> {
    let wrong = || format!("`{}`: argument 1 is not in base {}", args.function, alphabet.len());
    let digits: Vec<u8> = args.text(0)?.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let padding = digits.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits =
        if digits.len().is_multiple_of(group) { &digits[..digits.len() - padding] } else { return Err(wrong().into()) };
    // What a last group of fewer digits can't be: its bits would make no whole byte.
    let rest = digits.len() % group;
    let spare = rest * bits as usize % 8;
    if padding >= group || spare >= bits as usize || (rest == 0) != (padding == 0) {
        return Err(wrong().into());
    }
    let mut bytes = Vec::with_capacity(digits.len());
    let (mut held, mut count) = (0u32, 0u32);
    for digit in digits {
        let value = alphabet.iter().position(|known| known == digit).ok_or_else(wrong)?;
        held = (held << bits) | value as u32;
        count += bits;
        if count >= 8 {
            count -= 8;
            bytes.push((held >> count) as u8);
            held &= (1 << count) - 1;
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Val::text(&text)),
        Err(_) => Err(format!("`{}`: what is encoded is no UTF-8 text", args.function).into()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % MODULUS;
        (a, (b + a) % MODULUS)
    });
    (b << 16) | a
}
