//! From physical lines to instructions: directives, comments, continuations, here-documents, flags.
//!
//! The rules are BuildKit's (frontend/dockerfile/parser), among them: blank and comment lines inside a continued
//! instruction are dropped, `\\` at the end of a line does not continue it, directives end at the first other line.

use super::DockerfileError;
use super::error::shown;
use super::words;

/// What a file consists of.
pub(super) struct Lines {
    pub(super) escape: char,
    pub(super) syntax: Option<String>,
    pub(super) instructions: Vec<Instruction>,
}

/// One instruction.
pub(super) struct Instruction {
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// Its last line, from 1, without its here-documents.
    pub(super) last_line: usize,
    /// Its name in capital letters.
    pub(super) word: String,
    /// The `--flag[=value]` words in front of its arguments, without quotes.
    pub(super) flags: Vec<String>,
    /// What follows the flags.
    pub(super) rest: String,
    pub(super) has_heredoc: bool,
    /// What an `ONBUILD` holds.
    pub(super) trigger: Option<Box<Instruction>>,
}

pub(super) fn read(text: &str) -> Result<Lines, DockerfileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut directives = Directives { escape: '\\', syntax: None, seen: Vec::new(), over: false };
    let mut instructions = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, raw)) = lines.next() {
        let first = raw.trim_end_matches('\r').trim_start();
        directives.read(first, index + 1)?;
        if first.starts_with('#') {
            continue;
        }
        let escape = directives.escape;
        let (part, mut continued) = without_continuation(first, escape);
        if !continued && part.is_empty() {
            continue;
        }
        let mut logical = part.to_owned();
        let mut last = index;
        while continued {
            let Some((at, raw)) = lines.next() else { break };
            last = at;
            let line = raw.trim_end_matches('\r');
            if line.trim_start().starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let part;
            (part, continued) = without_continuation(line, escape);
            logical.push_str(part);
        }
        let Some(mut instruction) = instruction(&logical, index + 1, escape) else { continue };
        instruction.last_line = last + 1;
        if logical.contains("<<") && can_hold_heredoc(&instruction) {
            for heredoc in words::heredocs(&logical) {
                let ended = lines.by_ref().any(|(_, line)| {
                    let line = line.trim_end_matches('\r');
                    let line = if heredoc.strips_tabs { line.trim_start_matches('\t') } else { line };
                    line == heredoc.name
                });
                if !ended {
                    return Err(DockerfileError::HeredocEnd { line: index + 1, name: shown(&heredoc.name) });
                }
                match &mut instruction.trigger {
                    Some(trigger) => trigger.has_heredoc = true,
                    None => instruction.has_heredoc = true,
                }
            }
        }
        instructions.push(instruction);
    }
    Ok(Lines { escape: directives.escape, syntax: directives.syntax, instructions })
}

/// `# name=value` lines at the top of a file.
struct Directives {
    escape: char,
    syntax: Option<String>,
    seen: Vec<String>,
    over: bool,
}

impl Directives {
    fn read(&mut self, line: &str, number: usize) -> Result<(), DockerfileError> {
        if self.over {
            return Ok(());
        }
        let directive = line
            .strip_prefix('#')
            .and_then(|rest| rest.split_once('='))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()));
        let Some((name, value)) = directive
            .filter(|(name, value)| matches!(name.as_str(), "syntax" | "escape" | "check") && !value.is_empty())
        else {
            // A first line `#!/usr/bin/env …` is passed over when the frontend looks for its name.
            self.over = !(number == 1 && line.starts_with("#!"));
            return Ok(());
        };
        let error = |reason| Err(DockerfileError::Directive { line: number, reason });
        if self.seen.contains(&name) {
            return error("a parser directive can be given only once");
        }
        match (name.as_str(), value) {
            ("escape", "\\") => self.escape = '\\',
            ("escape", "`") => self.escape = '`',
            ("escape", _) => return error("the escape directive takes `\\` or a backtick"),
            ("syntax", value) => self.syntax = value.split(' ').next().map(str::to_owned),
            _ => {}
        }
        self.seen.push(name);
        Ok(())
    }
}

/// The line without an escape character at its end, and whether there was one. Two of them do not continue a line.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

fn instruction(logical: &str, line: usize, escape: char) -> Option<Instruction> {
    let logical = logical.trim();
    let (word, rest) = match logical.split_once(['\t', '\u{b}', '\u{c}', '\r', ' ']) {
        Some((word, rest)) => (word, rest),
        None => (logical, ""),
    };
    if word.is_empty() {
        return None;
    }
    let word = word.to_ascii_uppercase();
    let (flags, rest) = words::flags(rest, escape);
    let trigger = if word == "ONBUILD" { instruction(&rest, line, escape).map(Box::new) } else { None };
    Some(Instruction { line, last_line: line, word, flags, rest, has_heredoc: false, trigger })
}

fn can_hold_heredoc(instruction: &Instruction) -> bool {
    let holder = instruction.trigger.as_deref().unwrap_or(instruction);
    matches!(holder.word.as_str(), "RUN" | "COPY" | "ADD") && !words::is_json_list(&holder.rest)
}
