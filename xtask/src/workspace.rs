//! What the workspace holds, as Cargo tells it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// Features that need a device's toolkit to be built.
const OF_DEVICES: &[&str] = &["cuda", "metal", "candle-cuda", "candle-metal"];
/// The feature that builds documentation, and nothing that links, without libtorch.
pub const DOCUMENTATION: &str = "doc-only";

/// The workspace.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    /// Its members.
    pub packages: Vec<Package>,
    /// Its top folder.
    pub workspace_root: PathBuf,
    /// Where Cargo puts what it builds.
    pub target_directory: PathBuf,
}

/// A member of the workspace.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// What it depends on, members of the workspace among them.
    #[serde(default)]
    pub dependencies: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
    /// The registries that it may go to: any where it says nothing, none where the list is empty.
    publish: Option<Vec<String>>,
    /// The oldest Rust that builds it.
    rust_version: Option<String>,
}

/// A dependency of a member.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The name of the package.
    pub name: String,
    /// `dev` for tests, `build` for build scripts; nothing for the usual ones.
    pub kind: Option<String>,
}

impl Workspace {
    /// Asks Cargo.
    pub fn load() -> Result<Self> {
        let args = ["metadata", "--no-deps", "--format-version=1"];
        let metadata = process::output(&mut process::cargo(args))?;
        serde_json::from_str(&metadata).context("cannot read what `cargo metadata` says")
    }

    /// Whether a member needs libtorch.
    pub fn needs_libtorch(&self) -> bool {
        self.packages
            .iter()
            .any(|package| package.name == "chopi-tch")
    }

    /// The members that a release publishes.
    pub fn published(&self) -> impl Iterator<Item = &Package> {
        let packages = self.packages.iter();
        packages.filter(|package| package.publish.as_ref().is_none_or(|to| !to.is_empty()))
    }

    /// The oldest Rust that builds the members.
    pub fn rust_version(&self) -> Result<&str> {
        let mut versions = self
            .packages
            .iter()
            .filter_map(|package| package.rust_version.as_deref());
        versions
            .next()
            .context("no member of the workspace has a `rust-version`")
    }

    /// Every feature of every member, as an argument for Cargo; but not those of devices, nor that
    /// of documentation.
    pub fn all_features(&self) -> String {
        self.all_features_but("")
    }

    /// The features of every member but one, as an argument for Cargo; but not those of devices, nor that
    /// of documentation.
    pub fn all_features_but(&self, member: &str) -> String {
        let packages = self.packages.iter();
        let packages = packages.filter(|package| package.name != member);
        let features = packages.flat_map(|package| {
            package
                .features()
                .map(move |feature| format!("{}/{feature}", package.name))
        });
        format!("--features={}", features.collect::<Vec<_>>().join(","))
    }

    /// All features and that of documentation.
    pub fn documentation_features(&self) -> String {
        let packages = self.packages.iter();
        let packages = packages.filter(|package| package.features.contains_key(DOCUMENTATION));
        packages.fold(self.all_features(), |features, package| {
            format!("{features},{}/{DOCUMENTATION}", package.name)
        })
    }

    /// A Python script of the tasks.
    pub fn python(&self, script: &str) -> PathBuf {
        self.workspace_root.join("xtask/python").join(script)
    }

    /// A script of the tasks that steers a browser.
    pub fn browser(&self, script: &str) -> PathBuf {
        self.workspace_root.join("xtask/browser").join(script)
    }
}

impl Package {
    /// The features to build and test with.
    fn features(&self) -> impl Iterator<Item = &str> {
        let names = self.features.keys().map(String::as_str);
        names.filter(|name| !OF_DEVICES.contains(name) && *name != DOCUMENTATION)
    }

    /// The sets of features to be checked, as arguments for Cargo: none, and each alone. A package
    /// without features has no sets.
    pub fn feature_sets(&self) -> Vec<Vec<String>> {
        if self.features.is_empty() {
            return Vec::new();
        }
        // `default` that is one feature or none is the same as that one.
        let is_other_name = |name: &&str| *name == "default" && self.features[*name].len() < 2;
        let none = || vec!["--no-default-features".to_owned()];
        let alone = self
            .features()
            .filter(|name| !is_other_name(name))
            .map(|name| {
                let mut args = none();
                args.push(format!("--features={name}"));
                args
            });
        std::iter::once(none()).chain(alone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_sets_are_none_and_each_alone_once() {
        let package: Package = serde_json::from_str(
            r#"{"name": "p",
                "features": {"default": ["a"], "a": [], "b": ["dep:c"], "cuda": ["c/cuda"],
                             "doc-only": []}, "publish": null, "rust_version": "1.89"}"#,
        )
        .unwrap();
        let sets: Vec<String> = package
            .feature_sets()
            .iter()
            .map(|set| set.join(" "))
            .collect();
        assert_eq!(
            sets,
            [
                "--no-default-features",
                "--no-default-features --features=a",
                "--no-default-features --features=b"
            ]
        );
        let workspace = Workspace {
            packages: vec![package],
            workspace_root: "/".into(),
            target_directory: "/target".into(),
        };
        assert_eq!(workspace.all_features(), "--features=p/a,p/b,p/default");
        assert_eq!(
            workspace.documentation_features(),
            "--features=p/a,p/b,p/default,p/doc-only"
        );
    }
}
