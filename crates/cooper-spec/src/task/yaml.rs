//! YAML as a tree: every node with its place and every scalar with the text that was written.
//!
//! Owns the budgets: size, depth and nodes are limited before an alias is expanded. It knows nothing of task files. A
//! typed deserialiser would stop at the first fault and forget how a number was written.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, options};

/// The longest text that is read, in bytes.
pub(super) const MAX_TEXT: usize = 1 << 20;
/// How deep nodes may stand in each other.
const MAX_DEPTH: usize = 64;
/// How much a document may be, aliases expanded and anchors kept: the bytes of its texts, and its nodes.
const MOST: Weight = Weight { bytes: 8 << 20, nodes: 256 << 10 };
const SHORTER: Option<&str> = Some("write fewer and shorter entries; put data into files of the source");
const FLATTER: Option<&str> = Some("nothing that a task file means is that deep: take brackets and indentation away");
const OUTSIDE: Option<&str> = Some("write the alias outside of its anchor");

/// A place in a text. Lines and columns are counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) line: usize,
    pub(super) column: usize,
    /// In characters, at least 1.
    pub(super) length: usize,
}

/// A node and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) kind: Kind,
    weight: Weight,
    depth: usize,
}

/// What a node takes with all that is in it.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    bytes: usize,
    nodes: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A scalar's text. Only a plain one can be a number, a boolean or null.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the text, repetitions included.
    Map(Vec<(Node, Node)>),
}

/// Why a text is not YAML that is taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct YamlFault {
    pub(super) at: At,
    pub(super) message: String,
    /// The way out, where it is not better spelling.
    pub(super) help: Option<&'static str>,
}

/// A document.
#[derive(Debug)]
pub(super) struct Document {
    /// Its node; absent if there is nothing.
    pub(super) root: Option<Node>,
    /// Where a second document begins, which is not read.
    pub(super) second: Option<At>,
}

impl Node {
    /// Whether it says nothing: `key:` with nothing behind it, `~`, `null`.
    pub(super) fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, plain: true } => matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"),
            _ => false,
        }
    }

    /// What kind of thing it is, in words.
    pub(super) fn is_a(&self) -> &'static str {
        match &self.kind {
            _ if self.is_null() => "nothing",
            Kind::Scalar { .. } => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    fn scalar(at: At, text: String, plain: bool) -> Self {
        let weight = Weight { bytes: text.len(), nodes: 1 };
        Self { at, kind: Kind::Scalar { text, plain }, weight, depth: 0 }
    }
}

impl Weight {
    const COLLECTION: Self = Self { bytes: 0, nodes: 1 };

    fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, nodes: self.nodes + other.nodes }
    }
}

/// A collection that has not ended.
enum Open {
    List { at: At, anchor: usize, items: Vec<Node> },
    Map { at: At, anchor: usize, entries: Vec<(Node, Node)>, key: Option<Node> },
}

/// Reads the first document of a text.
pub(super) fn parse(text: &str) -> Result<Document, YamlFault> {
    let start = At { line: 1, column: 1, length: 1 };
    if text.len() > MAX_TEXT {
        return Err(YamlFault {
            at: start,
            message: format!("the text is longer than {} KiB", MAX_TEXT >> 10),
            help: SHORTER,
        });
    }
    let mut options = options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH };
    options.set_emit_comments(false);
    let mut reader =
        Reader { open: Vec::new(), anchors: HashMap::new(), weight: Weight::default(), has_aliases: false, root: None };
    let mut documents = 0;
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| {
            let (line, column) = (error.marker().line(), error.marker().col() + 1);
            let message = match error.info() {
                // The parser's own words for its limits of nesting.
                info if info.contains("recursion limit") => too_deep(),
                info => info,
            };
            let help = if message == too_deep() { FLATTER } else { None };
            YamlFault { at: At { line, column, length: 1 }, message, help }
        })?;
        if let Event::DocumentStart(..) = event {
            documents += 1;
            if documents > 1 {
                return Ok(Document { root: reader.root, second: Some(at(&span)) });
            }
        }
        reader.take(event, at(&span))?;
    }
    Ok(Document { root: reader.root, second: None })
}

fn too_deep() -> String {
    format!("nodes stand more than {MAX_DEPTH} deep in each other")
}

fn at(span: &Span) -> At {
    let same_line = span.start.line() == span.end.line();
    let length = if same_line { span.end.col().saturating_sub(span.start.col()) } else { 1 };
    At { line: span.start.line(), column: span.start.col() + 1, length: length.max(1) }
}

struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    weight: Weight,
    has_aliases: bool,
    root: Option<Node>,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, at: At) -> Result<(), YamlFault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                self.end(Node::scalar(at, text.into_owned(), plain), anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open.push(Open::List { at, anchor, items: Vec::new() });
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.open.push(Open::Map { at, anchor, entries: Vec::new(), key: None });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { at, anchor, items }) => {
                    let depth = 1 + items.iter().map(|item| item.depth).max().unwrap_or(0);
                    let weight = items.iter().map(|item| item.weight).fold(Weight::COLLECTION, Weight::and);
                    self.end(Node { at, kind: Kind::List(items), weight, depth }, anchor)
                }
                Some(Open::Map { at, anchor, entries, .. }) => {
                    let all = || entries.iter().flat_map(|(key, value)| [key, value]);
                    let depth = 1 + all().map(|node| node.depth).max().unwrap_or(0);
                    let weight = all().map(|node| node.weight).fold(Weight::COLLECTION, Weight::and);
                    self.end(Node { at, kind: Kind::Map(entries), weight, depth }, anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                // Charged before the copy is made.
                Some(node) => {
                    self.has_aliases = true;
                    self.weight = self.weight.and(node.weight);
                    self.check(at, node.depth)?;
                    let node = Node { at, ..node.clone() };
                    self.place(node);
                    Ok(())
                }
                None => {
                    Err(YamlFault { at, message: "an alias stands inside of what it names".to_owned(), help: OUTSIDE })
                }
            },
            _ => Ok(()),
        }
    }

    /// A node is complete.
    fn end(&mut self, node: Node, anchor: usize) -> Result<(), YamlFault> {
        self.weight = self.weight.and(match node.kind {
            Kind::Scalar { .. } => node.weight,
            Kind::List(_) | Kind::Map(_) => Weight::COLLECTION,
        });
        if anchor != 0 {
            self.has_aliases = true;
            self.weight = self.weight.and(node.weight);
        }
        self.check(node.at, node.depth)?;
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node);
        Ok(())
    }

    fn place(&mut self, node: Node) {
        match self.open.last_mut() {
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(node),
            },
            None => self.root = Some(node),
        }
    }

    fn check(&self, at: At, depth: usize) -> Result<(), YamlFault> {
        let most = match self.weight {
            Weight { bytes, .. } if bytes > MOST.bytes => Some(format!("is more than {} MiB", MOST.bytes >> 20)),
            Weight { nodes, .. } if nodes > MOST.nodes => {
                Some(format!("has more than {} keys, values and lists", MOST.nodes))
            }
            _ => None,
        };
        if let Some(most) = most {
            let expanded = if self.has_aliases { "with its aliases expanded, " } else { "" };
            return Err(YamlFault { at, message: format!("{expanded}the text {most}"), help: SHORTER });
        }
        if depth + self.open.len() > MAX_DEPTH {
            return Err(YamlFault { at, message: too_deep(), help: FLATTER });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(node: &Node) -> String {
        match &node.kind {
            Kind::Scalar { text, plain: true } => text.clone(),
            Kind::Scalar { text, plain: false } => format!("{text:?}"),
            Kind::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
            Kind::Map(entries) => {
                let entry = |(key, value): &(Node, Node)| format!("{}: {}", shown(key), shown(value));
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn fault(text: &str) -> YamlFault {
        parse(text).map(|document| document.root.map(|root| shown(&root))).expect_err("a fault")
    }

    #[test]
    fn keeps_what_was_written() {
        let table = [
            ("", None),
            ("# nothing\n", None),
            ("a: 010\nb: 'x'\nc:\n", Some("{a: 010, b: \"x\", c: ~}")),
            ("- 1.50\n- yes\n- |\n  x\n  y\n", Some("[1.50, yes, \"x\\ny\\n\"]")),
            ("a: 1\na: 2", Some("{a: 1, a: 2}")),
            ("a: &x [1, 2]\nb: *x", Some("{a: [1, 2], b: [1, 2]}")),
            ("a: !!str 1", Some("{a: \"1\"}")),
            ("{version: v1.1.0, steps: []}", Some("{version: v1.1.0, steps: []}")),
        ];
        for (text, expected) in table {
            let document = parse(text).expect(text);
            // An empty document is one empty scalar to some parsers, and nothing to others.
            let root = document.root.filter(|root| !root.is_null());
            assert_eq!(root.as_ref().map(shown).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn places_are_lines_and_columns_from_one() {
        let document = parse("a: 1\nschlüssel:\n  - \"b c\"\n").expect("YAML");
        let Kind::Map(entries) = document.root.expect("a root").kind else { panic!("a map") };
        assert_eq!(entries[0].1.at, At { line: 1, column: 4, length: 1 });
        assert_eq!(entries[1].0.at, At { line: 2, column: 1, length: 9 });
        let Kind::List(items) = &entries[1].1.kind else { panic!("a list") };
        assert_eq!(items[0].at, At { line: 3, column: 5, length: 5 });
    }

    #[test]
    fn a_second_document_is_told_of() {
        let document = parse("a: 1\n---\nb: 2\n").expect("YAML");
        assert_eq!(document.root.as_ref().map(shown).as_deref(), Some("{a: 1}"));
        assert_eq!(document.second.map(|at| at.line), Some(2));
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..40 {
            let before = format!("*a{}", level - 1);
            laughs += &format!("a{level}: &a{level} [{}]\n", vec![before; 9].join(", "));
        }
        let told = |text: &str| fault(text).message;
        assert_eq!(told(&laughs), "with its aliases expanded, the text has more than 262144 keys, values and lists");
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), ["*a"; 100].join(", "));
        assert_eq!(told(&long), "with its aliases expanded, the text is more than 8 MiB");
        let many = format!("[{}]", "a,".repeat(300_000));
        assert_eq!(told(&many), "the text has more than 262144 keys, values and lists");
        let mut chain = "a0: &a0 [x]\n".to_owned();
        for level in 1..200 {
            chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
        }
        assert!(fault(&chain).message.contains("64 deep"), "{:?}", fault(&chain));
        assert!(!fault(&"[".repeat(100_000)).message.is_empty());
        assert!(!fault(&"- ".repeat(100_000)).message.is_empty());
        assert!(!fault("a: &x [*x]").message.is_empty());
        assert!(fault(&"x".repeat(MAX_TEXT + 1)).message.contains("longer"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-c:&*!|>'\"#\\[\\]{},%@~ \n-]|\\PC)*") {
            let _ = parse(&text);
        }
    }
}
