use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

fn set(values: &[&[u8]]) -> MaskSet {
    MaskSet::new(values.iter().copied()).expect("small enough")
}

fn masked(set: &MaskSet, chunks: &[&[u8]]) -> Vec<u8> {
    let mut masker = Masker::new(set.clone());
    let mut out = Vec::new();
    chunks.iter().for_each(|chunk| masker.feed(chunk, &mut out));
    masker.finish(&mut out);
    out
}

/// What masking means, without any cleverness: every byte of every occurrence is covered.
fn model(patterns: &BTreeSet<Vec<u8>>, text: &[u8]) -> Vec<u8> {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for start in 0..text.len() {
        let longest = patterns.iter().filter(|pattern| text[start..].starts_with(pattern)).map(Vec::len).max();
        if let Some(length) = longest {
            match spans.last_mut() {
                Some(last) if last.1 > start => last.1 = last.1.max(start + length),
                _ => spans.push((start, start + length)),
            }
        }
    }
    let mut out = Vec::new();
    let mut at = 0;
    for (start, end) in spans {
        out.extend_from_slice(&text[at..start]);
        out.extend_from_slice(MASK);
        at = end;
    }
    out.extend_from_slice(&text[at..]);
    out
}

proptest! {
    /// Few different bytes, so that secrets, their beginnings and their overlaps turn up all the time.
    #[test]
    fn any_chunks_give_what_the_model_gives(
        values in proptest::collection::vec(proptest::collection::vec(0u8..3, 4..9), 1..4),
        // Shorter and longer than the longest form of a secret.
        chunks in proptest::collection::vec(proptest::collection::vec(0u8..3, 0..40), 0..8),
    ) {
        let mut patterns = BTreeSet::new();
        for value in &values {
            patterns::add(value, &mut patterns);
        }
        let set = MaskSet::new(values.iter().map(Vec::as_slice)).expect("small enough");
        let text = chunks.concat();
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(masked(&set, &chunks), model(&patterns, &text));
    }

    /// What is added in between counts from there on, also for what is held back.
    #[test]
    fn what_is_added_is_masked_from_then_on(
        first in proptest::collection::vec(0u8..3, 4..9),
        second in proptest::collection::vec(0u8..3, 4..9),
        before in proptest::collection::vec(0u8..3, 0..12),
        after in proptest::collection::vec(0u8..3, 0..24),
    ) {
        let set = set(&[&first]);
        let mut masker = Masker::new(set.clone());
        let mut out = Vec::new();
        masker.feed(&before, &mut out);
        set.add([&second[..]]).expect("small enough");
        let said = out.len();
        masker.feed(&after, &mut out);
        masker.finish(&mut out);
        let mut patterns = BTreeSet::new();
        patterns::add(&first, &mut patterns);
        patterns::add(&second, &mut patterns);
        // Masks are no bytes of the input's kind: pieces between them are bytes that were said as they came.
        for piece in out[said..].split(|byte| *byte == MASK[0]) {
            prop_assert!(!patterns.iter().any(|pattern| piece.windows(pattern.len()).any(|part| part == pattern)));
        }
        let whole = masked(&set, &[&before, &after]);
        if before.is_empty() {
            prop_assert_eq!(out, whole);
        }
    }

    #[test]
    fn no_form_of_a_secret_gets_through(
        secret in "[ -~]{6,60}",
        before in proptest::collection::vec(any::<u8>(), 0..40),
        after in proptest::collection::vec(any::<u8>(), 0..40),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
    ) {
        let secret = secret.trim_end();
        prop_assume!(secret.len() >= 6);
        let set = set(&[secret.as_bytes()]);
        let embedded = [&before[..], secret.as_bytes(), &after[..]].concat();
        let check = |text: &[u8], core: &[u8]| {
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|edge| &text[edge[0]..edge[1]]).collect();
            let out = masked(&set, &chunks);
            // The masks themselves could complete a secret of asterisks.
            secret.contains('*') || !out.windows(core.len()).any(|window| window == core)
        };
        prop_assert!(check(&embedded, secret.as_bytes()));
        let skip = before.len() % 3;
        // The middle of the encoded secret, without characters that it shares with its neighbours.
        let from = before.len() / 3 * 4 + (skip * 8).div_ceil(6);
        let to = (before.len() + secret.len()) * 8 / 6;
        for encoded in [STANDARD.encode(&embedded), URL_SAFE_NO_PAD.encode(&embedded)] {
            prop_assert!(check(encoded.as_bytes(), &encoded.as_bytes()[from..to]));
        }
        for alone in [STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret)] {
            prop_assert!(check(alone.as_bytes(), alone.as_bytes()));
        }
        let percent = |byte: u8| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02x}"),
        };
        let url: String = secret.bytes().map(percent).collect();
        let query = format!("a={url}&b");
        prop_assert!(check(query.as_bytes(), url.as_bytes()));
        let json = serde_json::to_string(secret).expect("text");
        prop_assert!(check(json.as_bytes(), &json.as_bytes()[1..json.len() - 1]));
    }

    #[test]
    fn what_holds_no_secret_is_untouched(text in "[a-m ]{0,200}", cut in any::<proptest::sample::Index>()) {
        let set = set(&[b"xyzxyz", b"nopqrs\nstuvw"]);
        let at = cut.index(text.len() + 1);
        prop_assert_eq!(masked(&set, &[&text.as_bytes()[..at], &text.as_bytes()[at..]]), text.as_bytes());
    }
}

#[test]
fn the_usual_forms_are_masked() {
    let secret = b"p@ss/w\xc3\xb6rd + 1";
    let set = set(&[secret]);
    let check = |text: &str, expect: &str| assert_eq!(set.text(text), expect, "{text}");
    check("a p@ss/wörd + 1 b", "a *** b");
    check(&format!("a {} b", STANDARD.encode(secret)), "a *** b");
    check(&format!("a {} b", URL_SAFE_NO_PAD.encode(secret)), "a *** b");
    check("u=p%40ss%2Fw%C3%B6rd%20%2B%201&", "u=***&");
    check("u=p%40ss%2fw%c3%b6rd+%2b+1&", "u=***&");
    check("p@ss/w", "p@ss/w");
    check(r#""p@ss\/w\u00f6rd + 1""#, r#""***""#);
    check(r#""p@ss/w\u00F6rd + 1""#, r#""***""#);
    let of_go = MaskSet::new([&b"Pa$$w0rd+with&and=or/slash@x"[..]]).expect("small");
    for form in [
        "Pa$$w0rd+with&and=or%2Fslash%40x",
        "Pa$$w0rd+with&and=or%2Fslash@x",
        r"Pa$$w0rd\u002Bwith\u0026and=or/slash@x",
        "Pa%24%24w0rd%2Bwith%26and%3Dor%2Fslash%40x",
    ] {
        assert_eq!(of_go.text(&format!("a {form} b")), "a *** b", "{form}");
    }
    let of_script = MaskSet::new([&b"abc+def/ghi=jkl&mno<pq"[..]]).expect("small");
    assert_eq!(of_script.text("a abc+def/ghi=jkl&mno%3Cpq b"), "a *** b");
    let html = MaskSet::new(["a<b>&\u{1f511}\u{7}".as_bytes()]).expect("small");
    assert_eq!(html.text(r"x a\u003cb\u003e\u0026🔑\u0007 y"), "x *** y");
    assert_eq!(html.text(r"x a<b>&\ud83d\udd11\u0007 y"), "x *** y");
    let spaced = MaskSet::new([&b"two  words\tand\nmore"[..]]).expect("small");
    assert_eq!(spaced.text("RUN use two words and more"), "RUN use ***");
    assert_eq!(spaced.text(r#"process "two  words\tand\nmore""#), r#"process "***""#);
}

#[test]
fn lines_of_a_secret_are_masked_alone_and_together() {
    let set = set(&[b"first line\r\nsecond line\nend\n"]);
    assert_eq!(set.text("a first line b"), "a *** b");
    assert_eq!(set.text("#5 second line\n#5 end\n"), "#5 ***\n#5 end\n");
    assert_eq!(set.text("first line\r\nsecond line\nend\n."), "***\n.");
}

#[test]
fn base64_broken_into_lines_is_masked() {
    let secret: Vec<u8> = (0..200u32).map(|n| u8::try_from(33 + n * 7 % 90).expect("below 123")).collect();
    let set = set(&[&secret]);
    let encoded = STANDARD.encode(&secret);
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    assert_eq!(set.text(&lines.join("\n")), vec!["***"; lines.len()].join("\n"));
}

#[test]
fn short_and_huge_values_are_told_apart() {
    let set = set(&[b"abc", b"ab\n", b"", b"long enough"]);
    assert_eq!(set.too_short(), 2);
    assert_eq!(set.text("abc ab long enough"), "abc ab ***");
    let huge = vec![b'x'; MAX_PATTERN_BYTES + PIECES];
    assert!(MaskSet::new([&huge[..]]).is_ok(), "pieces of the same bytes are one pattern");
    let lines: Vec<u8> = (0..1_000_000u32).flat_map(|n| format!("line {n:06}\n").into_bytes()).collect();
    assert!(MaskSet::new([&lines[..]]).is_err());
}

/// More than one piece of a long value.
const PIECES: usize = 4096;

#[test]
fn the_end_of_a_stream_lets_out_what_was_held() {
    let mut masker = Masker::new(set(&[b"secret"]));
    let mut out = Vec::new();
    masker.feed(b"a secr", &mut out);
    assert_eq!(out, b"a ");
    masker.finish(&mut out);
    assert_eq!(out, b"a secr");
    masker.feed(b"et secret", &mut out);
    masker.finish(&mut out);
    assert_eq!(out, b"a secret ***");
}
