//! Names of modules, and the templates that stand for the same module of every layer.

/// The component of a template that stands for a number.
pub const NUMBER: &str = "#";

/// The template of a module's name, with [`NUMBER`] for each number, and the numbers:
/// `layers.3.mlp` is `layers.#.mlp` and 3.
pub fn template(module: &str) -> (String, Vec<&str>) {
    let mut numbers = Vec::new();
    let parts: Vec<&str> = module
        .split('.')
        .map(|part| {
            if is_number(part) {
                numbers.push(part);
                NUMBER
            } else {
                part
            }
        })
        .collect();
    (parts.join("."), numbers)
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// The numbers of a module that a template with some numbers of its own stands for: 3 for `layers.3.net.0`
/// and `layers.#.net.0`.
pub fn numbers<'a>(template: &str, module: &'a str) -> Option<Vec<&'a str>> {
    let mut numbers = Vec::new();
    let mut parts = module.split('.');
    for expected in template.split('.') {
        let part = parts.next()?;
        match expected {
            NUMBER if is_number(part) => numbers.push(part),
            _ if part == expected => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some(numbers)
}

/// Whether a component of a name is a number; in a template [`NUMBER`] is none.
pub fn has_number(name: &str) -> bool {
    name.split('.').any(is_number)
}

/// Whether the first component of a name is a number.
pub fn starts_with_number(name: &str) -> bool {
    name.split('.').next().is_some_and(is_number)
}

/// A template with numbers in their places; none where there are not as many as places.
pub fn fill(template: &str, numbers: &[&str]) -> Option<String> {
    let mut numbers = numbers.iter();
    let mut parts = Vec::new();
    for part in template.split('.') {
        parts.push(match part {
            NUMBER => numbers.next()?,
            _ => part,
        });
    }
    numbers.next().is_none().then(|| parts.join("."))
}

/// The last component of a module's name, which says what it does: `down_proj` of
/// `layers.#.mlp.down_proj`. A number says nothing without what it counts: `net.#` of `mlp.net.#`.
pub fn last(template: &str) -> &str {
    match template.strip_suffix(".#") {
        Some(counted) => &template[counted.rfind('.').map_or(0, |dot| dot + 1)..],
        None => &template[template.rfind('.').map_or(0, |dot| dot + 1)..],
    }
}

/// A name, and what is left of it after each component: `a.b.c`, `b.c`, `c`.
pub fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    let dots = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
    std::iter::once(name).chain(dots)
}

/// The name without its first component, if that is this prefix and something follows.
pub fn without_prefix<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix)?.strip_prefix('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_stand_for_all_layers() {
        let (layers, numbers) = template("model.layers.12.mlp.experts.3.w1");
        assert_eq!(layers, "model.layers.#.mlp.experts.#.w1");
        assert_eq!(numbers, ["12", "3"]);
        let module = fill("layers.#.experts.#.w1", &numbers).unwrap();
        assert_eq!(module, "layers.12.experts.3.w1");
        assert_eq!(fill("layers.#", &numbers), None);
        assert_eq!(fill("layers.#.#.#", &numbers), None);
        assert_eq!(template("a1.b").0, "a1.b");
        assert_eq!(super::numbers("net.#.fc.0", "net.3.fc.0").unwrap(), ["3"]);
        assert_eq!(super::numbers("net.#.fc.0", "net.3.fc.1"), None);
        assert_eq!(super::numbers("net.#", "net.3.fc"), None);
        assert!(has_number("net.#.fc.0") && !has_number("net.#"));
    }

    #[test]
    fn the_last_component_names_what_a_number_counts() {
        assert_eq!(last("layers.#.mlp.down_proj"), "down_proj");
        assert_eq!(last("mlp.net.#"), "net.#");
        assert_eq!(last("net.#"), "net.#");
        assert_eq!(last("head"), "head");
        assert_eq!(suffixes("a.b.c").collect::<Vec<_>>(), ["a.b.c", "b.c", "c"]);
    }
}
