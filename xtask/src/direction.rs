//! The floors of the workspace, as `ARCHITECTURE.md` lists them: a crate depends on those below it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::{Package, Workspace};

/// The folder of the sources of the kernels, and words of the floors above that are no code there.
const KERNELS: &str = "crates/chopi-kernels/src";
const ABOVE_KERNELS: [&str; 2] = ["Convention", "QParams"];

/// Checks that no crate depends on one that stands above it, and that the kernels know nothing of
/// what stands above them.
pub fn check(workspace: &Workspace) -> Result<()> {
    let root = &workspace.workspace_root;
    let path = root.join("ARCHITECTURE.md");
    let page =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    check_dependencies(&floors(&page), &workspace.packages)?;
    check_sources(&root.join(KERNELS))
}

/// The crates that a page lists, the lowest first: the first cells of its first table, in backticks.
fn floors(page: &str) -> Vec<&str> {
    page.lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .filter_map(|row| row.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect()
}

fn check_dependencies(floors: &[&str], packages: &[Package]) -> Result<()> {
    let floor = |name: &str| floors.iter().position(|&of| of == name);
    for package in packages {
        let name = &package.name;
        let own = floor(name)
            .with_context(|| format!("{name} is not in the table of ARCHITECTURE.md"))?;
        let members = package.dependencies.iter().filter(|dependency| {
            packages
                .iter()
                .any(|package| package.name == dependency.name)
        });
        for dependency in members {
            // Tests may use the crate of tests, which stands above what it tests.
            let of_tests =
                dependency.kind.as_deref() == Some("dev") && dependency.name == "chopi-conformance";
            let below = floor(&dependency.name).is_some_and(|floor| floor < own);
            ensure!(
                below || of_tests,
                "{name} depends on {}, which does not stand below it in the table of ARCHITECTURE.md",
                dependency.name
            );
        }
    }
    Ok(())
}

/// Checks every source in a folder.
fn check_sources(folder: &Path) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            check_sources(&path)?;
        } else if let Some((line, word)) = first_above(&fs::read_to_string(&path)?) {
            bail!("{}:{line} speaks of {word}", path.display());
        }
    }
    Ok(())
}

/// The number of the first line of code with a word of the floors above, and the word. Comments may
/// have one.
fn first_above(source: &str) -> Option<(usize, &'static str)> {
    source.lines().enumerate().find_map(|(i, line)| {
        let code = line.split("//").next().unwrap_or(line);
        let words = ABOVE_KERNELS.into_iter();
        let word = words.into_iter().find(|word| code.contains(word))?;
        Some((i + 1, word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependency: &str, kind: Option<&str>) -> Package {
        serde_json::from_value(serde_json::json!({
            "name": name,
            "features": {},
            "dependencies": [{"name": dependency, "kind": kind}, {"name": "half", "kind": null}],
        }))
        .unwrap()
    }

    #[test]
    fn the_floors_of_this_workspace_hold() {
        check(&Workspace::load().unwrap()).unwrap();
    }

    #[test]
    fn a_crate_may_depend_on_those_below_it_only() {
        let floors =
            floors("# A page\n\n| crate | |\n|---|---|\n| `a` | |\n| `b` | |\n\n| `c` |\n");
        assert_eq!(floors, ["a", "b"]);
        let check = |lower: &str, upper: &str, kind| {
            let packages = [package("a", lower, kind), package("b", upper, kind)];
            check_dependencies(&floors, &packages).map_err(|error| error.to_string())
        };
        assert_eq!(check("half", "a", None), Ok(()));
        let up = check("b", "a", None).unwrap_err();
        assert!(up.starts_with("a depends on b"), "{up}");
        assert!(check("b", "a", Some("dev")).is_err());
        let unknown = check_dependencies(&floors, &[package("c", "half", None)]);
        assert!(unknown.unwrap_err().to_string().contains("c is not in"));
    }

    #[test]
    fn tests_may_use_the_crate_of_tests() {
        let floors = ["a", "chopi-conformance"];
        let packages = |kind| {
            [
                package("a", "chopi-conformance", kind),
                package("chopi-conformance", "a", None),
            ]
        };
        assert!(check_dependencies(&floors, &packages(Some("dev"))).is_ok());
        assert!(check_dependencies(&floors, &packages(None)).is_err());
    }

    #[test]
    fn words_of_the_floors_above_are_found_in_code() {
        assert_eq!(
            first_above("// A Convention\nlet x = 1; // QParams\n"),
            None
        );
        assert_eq!(first_above("\nuse x::QParams;\n"), Some((2, "QParams")));
    }
}
