//! What the words of a module's name say of it.

use chopi::model::is_linear_weight;

use super::name::last;
use super::table::Table;

/// What the last component of a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// A linear layer in every architecture that has it.
    Linear,
    /// A linear layer in none.
    Other(&'static str),
    /// Sometimes one.
    Either,
}

/// What the last component of a template says.
pub fn word(template: &str) -> Word {
    let table = Table::built_in();
    let last = last(template);
    match table.other.get(last) {
        Some(what) => Word::Other(what),
        None if table.linear.contains(last) => Word::Linear,
        None => Word::Either,
    }
}

/// Whether a linear layer lies next to the model's input or output, where quantizing costs most.
pub fn is_edge(template: &str) -> bool {
    !is_linear_weight(&format!("{template}.weight"), &[1, 1])
}

/// Whether a name says that a matrix chooses experts.
pub fn is_router(template: &str) -> bool {
    const ROUTERS: [&str; 3] = ["gate", "router", "switch"];
    template
        .split('.')
        .any(|part| ROUTERS.contains(&part) || part.ends_with("router"))
}

/// Whether a name says that a matrix is a table of positions or the like.
pub fn is_table(template: &str) -> bool {
    let last = last(template);
    let words = ["bias", "position", "relative", "table", "codebook", "token"];
    words.iter().any(|word| last.contains(word))
}

/// Whether a name is one that base models have in models with a head.
pub fn is_prefix(first: &str) -> bool {
    let mut types = Table::built_in().types.values();
    types.any(|facts| facts.prefixes.iter().any(|prefix| prefix == first))
}
