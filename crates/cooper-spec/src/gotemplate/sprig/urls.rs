//! URLs, taken apart and put together as Go does (RFC 3986).

use std::rc::Rc;

use crate::gotemplate::error::Outcome;
use crate::gotemplate::function::{Args, Function, exact};
use crate::gotemplate::heap::{Entries, Heap};
use crate::gotemplate::value::Val;

pub(super) const FUNCTIONS: &[Function] = &[exact("urlParse", 1, parse), exact("urlJoin", 1, join)];

/// Characters that stand for themselves in each part, besides letters, digits and `-_.~`.
const PATH: &str = "$&+,/:;=@";
const FRAGMENT: &str = "$&+,/:;=?@!()*";
const USER: &str = "$&+,;=";
const HOST: &str = "!$&'()*+,;=:[]<>\"";

fn parse(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let wrong = || "argument 1 of `urlParse` is no URL".to_owned();
    let text = args.text(0)?;
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err(wrong().into());
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let fragment = decoded(fragment).ok_or_else(wrong)?;
    let (scheme, rest) = scheme(rest).ok_or_else(wrong)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_opaque = !scheme.is_empty() && !rest.starts_with('/') && !rest.is_empty();
    let first_segment = rest.split('/').next().unwrap_or_default();
    if !is_opaque && scheme.is_empty() && !rest.starts_with('/') && first_segment.contains(':') {
        return Err(wrong().into());
    }
    let (mut user, mut host, mut path, mut opaque) = (String::new(), String::new(), String::new(), "");
    if is_opaque {
        opaque = rest;
    } else {
        let mut rest = rest;
        // Three slashes without a scheme begin a path.
        if (!scheme.is_empty() || !rest.starts_with("///"))
            && let Some(behind) = rest.strip_prefix("//")
        {
            let end = behind.find('/').unwrap_or(behind.len());
            let (authority, after) = behind.split_at(end);
            let at = authority.rfind('@');
            host = host_of(&authority[at.map_or(0, |at| at + 1)..]).ok_or_else(wrong)?;
            user = user_of(&authority[..at.unwrap_or(0)]).ok_or_else(wrong)?;
            rest = after;
        }
        path = decoded(rest).ok_or_else(wrong)?;
    }
    let hostname = hostname(&host);
    let entries: [(&str, &str); 8] = [
        ("scheme", &scheme),
        ("host", &host),
        ("hostname", hostname),
        ("path", &path),
        ("query", query),
        ("opaque", opaque),
        ("fragment", &fragment),
        ("userinfo", &user),
    ];
    let entries: Entries = entries.into_iter().map(|(key, value)| (Rc::from(key), Val::text(value))).collect();
    Ok(heap.new_map(entries))
}

/// What stands before the first `:`, in small letters, if it can be a scheme.
fn scheme(text: &str) -> Option<(String, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).unwrap_or(text.len());
    if !text[end..].starts_with(':') || (end > 0 && !text.starts_with(|c: char| c.is_ascii_alphabetic())) {
        return Some((String::new(), text));
    }
    // `:x` has no scheme where one must be.
    (end > 0).then(|| (text[..end].to_ascii_lowercase(), &text[end + 1..]))
}

fn host_of(text: &str) -> Option<String> {
    let port = match text.strip_prefix('[') {
        Some(inner) => {
            let (_, after) = inner.split_once(']')?;
            Some(after).filter(|after| !after.is_empty())
        }
        None => text.rfind(':').map(|colon| &text[colon..]),
    };
    if let Some(port) = port
        && !(port.starts_with(':') && port[1..].bytes().all(|byte| byte.is_ascii_digit()))
    {
        return None;
    }
    if text.contains(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_.~%".contains(c) && !HOST.contains(c))
    {
        return None;
    }
    decoded(text)
}

fn hostname(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, _)) => address,
        None => host.rfind(':').map_or(host, |colon| &host[..colon]),
    }
}

/// A user and password, each encoded anew.
fn user_of(text: &str) -> Option<String> {
    let known = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    if !text.chars().all(known) {
        return None;
    }
    let (name, password) = text.split_once(':').map_or((text, None), |(name, password)| (name, Some(password)));
    let name = encoded(&decoded(name)?, USER);
    Some(match password {
        Some(password) => format!("{name}:{}", encoded(&decoded(password)?, USER)),
        None => name,
    })
}

/// Replaces `%XX`; `None` if one is broken, or no UTF-8 comes of them.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

fn encoded(text: &str, also: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-_.~".contains(c) || (byte.is_ascii() && also.contains(c)) {
            encoded.push(c);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn join(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let map = heap.map(args.map(0)?);
    let part = |key: &str| -> Outcome<&str> {
        match map.get(key) {
            None => Ok(""),
            Some(Val::Text(text)) => Ok(text),
            Some(other) => Err(format!("`urlJoin`: {key:?} must be a string, not {}", other.described()).into()),
        }
    };
    let (scheme, host, path, opaque) = (part("scheme")?, part("host")?, part("path")?, part("opaque")?);
    let user = user_of(part("userinfo")?).ok_or("`urlJoin`: \"userinfo\" is none")?;
    let mut url = String::new();
    if !scheme.is_empty() {
        url = format!("{scheme}:");
    }
    if opaque.is_empty() {
        if !scheme.is_empty() || !host.is_empty() || !user.is_empty() {
            if !host.is_empty() || !path.is_empty() || !user.is_empty() {
                url.push_str("//");
            }
            if !user.is_empty() {
                url.push_str(&user);
                url.push('@');
            }
            url.push_str(&encoded(host, HOST));
        }
        let path = if path == "*" { path.to_owned() } else { encoded(path, PATH) };
        if !path.is_empty() && !path.starts_with('/') && !host.is_empty() {
            url.push('/');
        }
        // Without a scheme, a first segment with `:` would be read as one.
        if url.is_empty() && path.split('/').next().is_some_and(|segment| segment.contains(':')) {
            url.push_str("./");
        }
        url.push_str(&path);
    } else {
        url.push_str(opaque);
    }
    if !part("query")?.is_empty() {
        url.push('?');
        url.push_str(part("query")?);
    }
    if !part("fragment")?.is_empty() {
        url.push('#');
        url.push_str(&encoded(part("fragment")?, FRAGMENT));
    }
    Ok(Val::text(&url))
}
