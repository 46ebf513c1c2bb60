//! `cargo xtask check-docs`: the documentation without a dead link, in rustdoc and in the pages of the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// Where the documentation of the facade is read; its pages are those that Cargo has built here.
const PUBLISHED: &str = "https://docs.rs/chopi/latest/";
/// Folders whose files pages name in backticks.
const FOLDERS: [&str; 6] = [
    "benches/",
    "crates/",
    "docs/",
    "examples/",
    "tests/",
    "xtask/",
];

/// Builds the documentation, as on docs.rs without libtorch, and checks all links.
pub fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    build_all(&workspace)?;
    links(&workspace)
}

/// Builds the documentation of all crates, as on docs.rs without libtorch.
pub fn build_all(workspace: &Workspace) -> Result<()> {
    let features = workspace.documentation_features();
    let all = ["doc", "--no-deps", "--lib", "--workspace", &features];
    build(&mut process::cargo(all))
}

/// Runs a command of Cargo that builds documentation, which fails at dead links within it.
pub fn build(command: &mut std::process::Command) -> Result<()> {
    let flags = "-D warnings -D rustdoc::broken_intra_doc_links";
    process::run(command.env("RUSTDOCFLAGS", flags))
}

/// Checks the links of the pages: to files of the repository, to headings of a page, and to the documentation of
/// the facade, which must be built; and the files that they name in backticks.
pub fn links(workspace: &Workspace) -> Result<()> {
    let root = &workspace.workspace_root;
    let mut pages = markdown(root)?;
    for folder in ["docs", "examples", "examples/data", "tests/conformance"] {
        pages.extend(markdown(&root.join(folder))?);
    }
    let built = workspace.target_directory.join("doc");
    let (mut count, mut dead) = (0, Vec::new());
    for page in &pages {
        let text =
            fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
        let prose = without_code(&text);
        let named = backticks(&prose)
            .into_iter()
            .filter(|name| is_file_name(name));
        let named = named.map(|name| (name, root.join(name).exists()));
        let targets = targets(&prose);
        let linked = targets
            .into_iter()
            .map(|link| (link, leads_somewhere(link, page, &text, &built)));
        for (link, is_alive) in linked.chain(named) {
            count += 1;
            if !is_alive {
                let page = page.strip_prefix(root).unwrap_or(page);
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    if !dead.is_empty() {
        bail!("dead links:\n{}", dead.join("\n"));
    }
    println!(
        "{count} links and names of files in {} pages lead somewhere",
        pages.len()
    );
    Ok(())
}

/// The pages in a folder.
fn markdown(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    Ok(paths.into_iter().filter(is_page).collect())
}

/// A page without its blocks of code.
fn without_code(text: &str) -> String {
    let mut is_code = false;
    let prose = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    prose.flat_map(|line| [line, "\n"]).collect()
}

/// What the links of a page lead to.
fn targets(prose: &str) -> Vec<&str> {
    let between = |start: &'static str, end: char| {
        let pieces = prose.split(start).skip(1);
        pieces.filter_map(move |piece| piece.split_once(end).map(|(target, _)| target))
    };
    let links = between("](", ')').chain(between("src=\"", '"'));
    links.chain(between("href=\"", '"')).collect()
}

/// What stands in backticks on one line.
fn backticks(prose: &str) -> Vec<&str> {
    prose
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

fn is_file_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    FOLDERS.iter().any(|folder| name.starts_with(folder)) && name.chars().all(plain)
}

fn leads_somewhere(link: &str, page: &Path, text: &str, built: &Path) -> bool {
    if let Some(published) = link.strip_prefix(PUBLISHED) {
        return built
            .join(published.split('#').next().unwrap_or_default())
            .is_file();
    }
    if link.starts_with("https://") || link.starts_with("http://") {
        // Others' pages are not fetched.
        return true;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => page.to_owned(),
        path => page.parent().unwrap_or(page).join(path),
    };
    let heading = || match path {
        "" => headings(text).contains(anchor),
        _ => fs::read_to_string(&target).is_ok_and(|text| headings(&text).contains(anchor)),
    };
    target.exists() && (anchor.is_empty() || heading())
}

/// The anchors of a page's headings.
fn headings(text: &str) -> BTreeSet<String> {
    let prose = without_code(text);
    let titles = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |title: &str| -> String {
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    titles.map(anchor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A title: with words\n[one](other.md#its-part) `docs/x.md` `docs/*.md` `a b`\n```text\n[no](link)\n```\n<img src=\"a.png\"/>\n";

    #[test]
    fn links_and_names_are_found_outside_of_code() {
        let prose = without_code(PAGE);
        assert_eq!(targets(&prose), ["other.md#its-part", "a.png"]);
        let named = backticks(&prose)
            .into_iter()
            .filter(|name| is_file_name(name));
        assert_eq!(named.collect::<Vec<_>>(), ["docs/x.md"]);
    }

    #[test]
    fn a_link_leads_to_a_file_and_a_heading_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("page.md"), PAGE).unwrap();
        fs::create_dir_all(path("doc/chopi/guide")).unwrap();
        fs::write(path("doc/chopi/guide/index.html"), "").unwrap();
        let leads = |link: &str| leads_somewhere(link, &path("page.md"), PAGE, &path("doc"));
        assert!(leads("#a-title-with-words") && leads("page.md#a-title-with-words"));
        assert!(leads("page.md") && leads("https://semver.org"));
        assert!(leads(
            "https://docs.rs/chopi/latest/chopi/guide/index.html#x"
        ));
        for dead in [
            "#other",
            "page.md#other",
            "none.md",
            "https://docs.rs/chopi/latest/chopi/x.html",
        ] {
            assert!(!leads(dead), "{dead}");
        }
    }
}
