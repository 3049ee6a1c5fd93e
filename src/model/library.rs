//! Where packages are looked for, and the one that is always there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::package::{EmbeddedFiles, Package};
use crate::error::{Error, Result};

/// The model that paints when none is asked for.
pub const DEFAULT_MODEL: &str = "scenes-32";

/// Where packages are installed.
const SYSTEM_FOLDER: &str = "/usr/share/driftglass/models";

/// The default model, inside the program: one file copied to a board paints.
const EMBEDDED: &[EmbeddedFiles] = &[&[
    (
        "model.toml",
        include_bytes!("../../models/scenes-32/model.toml"),
    ),
    (
        "fp16.onnx",
        include_bytes!("../../models/scenes-32/fp16.onnx"),
    ),
    (
        "int8.onnx",
        include_bytes!("../../models/scenes-32/int8.onnx"),
    ),
    (
        "reference.npz",
        include_bytes!("../../models/scenes-32/reference.npz"),
    ),
]];

/// Folders of packages, the first one first, and the embedded packages behind them.
#[derive(Debug, Clone)]
pub struct Library {
    folders: Vec<PathBuf>,
}

impl Library {
    /// Looks into `given`, then into `models` beside the program, then where packages are
    /// installed, then into the program itself.
    pub fn new(given: Option<PathBuf>) -> Self {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.join("models")));
        Self {
            folders: given
                .into_iter()
                .chain(beside)
                .chain([SYSTEM_FOLDER.into()])
                .collect(),
        }
    }

    /// Opens the package called `name`; what holds a `/` or begins with a `.` is a folder's path.
    ///
    /// # Errors
    ///
    /// When there is no such package (the sentence lists those there are), or its manifest is not
    /// right.
    pub fn open(&self, name: &str) -> Result<Package> {
        if name.contains('/') || name.starts_with('.') {
            return Package::open(name);
        }
        let folders = self.folders.iter().map(|folder| folder.join(name));
        if let Some(folder) = folders.into_iter().find(|folder| is_package(folder)) {
            return Package::open(folder);
        }
        let mut embedded = embedded_packages()?.into_iter();
        embedded
            .find(|package| package.manifest().name == name)
            .ok_or_else(|| {
                let known = self.names().unwrap_or_default().join(", ");
                Error::unexpected("model", format!("one of {known}, or a folder's path"), name)
            })
    }

    /// The names of all packages, sorted.
    ///
    /// # Errors
    ///
    /// When a folder is there but cannot be listed.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for folder in &self.folders {
            for name in package_names(folder)? {
                names.insert(name);
            }
        }
        for package in embedded_packages()? {
            names.insert(package.manifest().name.clone());
        }
        Ok(names.into_iter().collect())
    }
}

fn embedded_packages() -> Result<Vec<Package>> {
    EMBEDDED
        .iter()
        .map(|files| Package::embedded(files))
        .collect()
}

fn is_package(folder: &Path) -> bool {
    folder.join("model.toml").is_file()
}

fn package_names(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(folder, "list", error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(folder, "list", error))?;
        if is_package(&entry.path()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}
