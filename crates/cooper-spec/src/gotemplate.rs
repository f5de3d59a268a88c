//! The template language of task files: Go's `text/template` with Sprig's pure functions (ACR contract §4.2, §4.3).
//!
//! It owns the language and its functions. What `.Run`, `.Values` and `.Secrets` hold is the caller's business, and so is
//! everything that looks at a task file as YAML. A template is hostile: it has fuel, an output limit and a nesting limit,
//! it reads no clock, no environment and no network, and the same input gives the same text.
//!
//! A text becomes tokens (`lexer`), these a tree (`parser`, `tree`), and `eval` walks the tree over internal values
//! (`value`), whose maps live in the `heap`, which counts the fuel too. `print` and `format` write values as Go's `fmt`
//! does; `builtins` and `sprig` hold the functions, `function` how they are found and called.

mod builtins;
mod data;
mod error;
mod eval;
mod format;
mod function;
mod heap;
mod lexer;
mod missing;
mod number;
mod parser;
mod print;
mod sprig;
mod tree;
mod value;

#[cfg(test)]
mod tests;

use cooper_types::Timestamp;

pub use data::Value;
pub use error::{RenderError, RenderErrorKind};
pub use missing::Missing;

/// What a template may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps of work: one for each token, each node that is evaluated, each element and each 16 bytes that are made.
    pub fuel: u64,
    /// Bytes of the rendered text.
    pub output: usize,
    /// Levels of nested actions, parentheses, template calls and values.
    pub depth: usize,
}

impl Limits {
    /// For a task file: far more than any needs, and less than a second of work.
    pub const DEFAULT: Self = Self { fuel: 1_000_000, output: 1 << 20, depth: 200 };
}

/// Renders `text`, which errors call `name`, over `data`. What is missing renders as nothing; `now` is what the template
/// takes for the present time.
pub fn render(name: &str, text: &str, data: &Value, now: Timestamp, limits: &Limits) -> Result<String, RenderError> {
    render_some(name, text, data, now, &mut { *limits }).map(|rendered| rendered.text)
}

/// A rendered text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// What the template made.
    pub text: String,
    /// What it read that is not there, and did not ask for: at most a hundred places, in the order of the text.
    pub missing: Vec<Missing>,
}

/// The same for one of several texts: what it has used is gone from `limits.fuel`.
pub fn render_some(
    name: &str,
    text: &str,
    data: &Value,
    now: Timestamp,
    limits: &mut Limits,
) -> Result<Rendered, RenderError> {
    let mut heap = heap::Heap::new(limits, now);
    let rendered = parser::parse(text, &heap)
        .and_then(|program| eval::run(&program, data, &mut heap, limits))
        .map_err(|fault| fault.locate(name, text));
    limits.fuel = heap.fuel();
    rendered
}
