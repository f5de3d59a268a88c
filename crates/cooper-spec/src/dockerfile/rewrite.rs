//! Other names for some of the images that a Dockerfile names, everything else as it is written, line by line.

use std::collections::BTreeMap;

use cooper_types::Platform;

use super::error::shown;
use super::lines::{self, Instruction, Lines};
use super::stages::{self, Origin, Stages};
use super::{Dockerfile, DockerfileError};

impl Dockerfile {
    /// The text with other names for images; `None` if it names none of them. `other_name` is asked for each image that
    /// is none of the file's stages, with variables replaced. Every instruction stays on its line.
    pub fn renamed(
        text: &str,
        build_args: &[(String, String)],
        platform: Option<&Platform>,
        other_name: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<String>, DockerfileError> {
        let Lines { escape, instructions, .. } = lines::read(text)?;
        let stages = Stages::from_instructions(&instructions, escape)?;
        let mut bases = stages.bases(&stages.variables(build_args, platform)?)?.into_iter();
        // From a line's index to what stands there instead.
        let mut changed: BTreeMap<usize, String> = BTreeMap::new();
        let lines: Vec<&str> = text.lines().collect();
        for instruction in &instructions {
            if instruction.word == "FROM" {
                let Some(Origin::Image(image)) = bases.next() else { continue };
                if let Some(name) = other_name(&image) {
                    changed.insert(instruction.line - 1, from(instruction, &name));
                    changed.extend((instruction.line..instruction.last_line).map(|index| (index, String::new())));
                }
                continue;
            }
            for source in stages::sources(instruction)? {
                let Origin::Image(image) = stages.origin(&source)? else { continue };
                let Some(name) = other_name(&image) else { continue };
                let mut found = false;
                for index in instruction.line - 1..instruction.last_line {
                    let written = changed.get(&index).map(String::as_str).or(lines.get(index).copied());
                    if let Some(line) = written.and_then(|line| with_source(line, &image, &name)) {
                        changed.insert(index, line);
                        found = true;
                    }
                }
                if !found {
                    // It is written with quotes or escapes inside.
                    return Err(DockerfileError::VariableInSource { line: instruction.line, text: shown(&image) });
                }
            }
        }
        if changed.is_empty() {
            return Ok(None);
        }
        let lines = lines.iter().enumerate().map(|(index, line)| changed.get(&index).map_or(*line, String::as_str));
        let mut text = lines.collect::<Vec<_>>().join("\n");
        text.push('\n');
        Ok(Some(text))
    }
}

fn from(instruction: &Instruction, name: &str) -> String {
    let flags = instruction.flags.iter().map(|flag| format!("{flag} ")).collect::<String>();
    // What follows the image: ` AS name` or nothing, as the file was read before.
    let rest = instruction.rest.split_whitespace().skip(1).map(|word| format!(" {word}")).collect::<String>();
    format!("FROM {flags}{name}{rest}")
}

/// The line with `from=NAME` in place of `from=IMAGE`, if that is there as a whole word.
fn with_source(line: &str, image: &str, name: &str) -> Option<String> {
    let wanted = format!("from={image}");
    let ends = |rest: &str| {
        rest.chars().next().is_none_or(|c| c.is_whitespace() || matches!(c, ',' | '"' | '\'' | '\\' | '`'))
    };
    let lower = line.to_ascii_lowercase();
    let key = "from=";
    let mut at = 0;
    while let Some(found) = lower[at..].find(key) {
        let start = at + found;
        let value = start + key.len();
        if line[value..].starts_with(image) && ends(&line[start + wanted.len()..]) {
            return Some(format!("{}{name}{}", &line[..value], &line[value + image.len()..]));
        }
        at = value;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(text: &str) -> Option<String> {
        let other = |image: &str| (image == "r.io/app:1").then(|| "x.invalid/a:2".to_owned());
        Dockerfile::renamed(text, &[("V".into(), "1".into())], None, &other).expect("a Dockerfile")
    }

    #[test]
    fn images_get_other_names_and_nothing_else_changes() {
        let check = |text: &str, expect: &str| assert_eq!(renamed(text).as_deref(), Some(expect));
        check("FROM r.io/app:1\nRUN x\n", "FROM x.invalid/a:2\nRUN x\n");
        check(
            "# syntax=docker/dockerfile:1\nARG V=9\nFROM --platform=$BUILDPLATFORM \\\n  r.io/app:$V as base\nFROM base\n",
            "# syntax=docker/dockerfile:1\nARG V=9\nFROM --platform=$BUILDPLATFORM x.invalid/a:2 as base\n\nFROM base\n",
        );
        check(
            "FROM scratch\nCOPY --chown=1 --from=r.io/app:1 /a r.io/app:1\n",
            "FROM scratch\nCOPY --chown=1 --from=x.invalid/a:2 /a r.io/app:1\n",
        );
        check(
            "FROM alpine\nRUN --mount=type=bind,\\\nfrom=r.io/app:1,source=/a cat <<X\nfrom=r.io/app:1\nX\n",
            "FROM alpine\nRUN --mount=type=bind,\\\nfrom=x.invalid/a:2,source=/a cat <<X\nfrom=r.io/app:1\nX\n",
        );
        assert_eq!(renamed("FROM r.io/app:12\nCOPY --from=r.io/app:1.1 /a /b\n"), None);
        assert_eq!(renamed("FROM alpine AS b\nCOPY --from=b /a /b\n"), None);
    }
}
