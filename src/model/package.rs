//! One package: a folder whose files are what its manifest says.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::manifest::{File, Manifest, Precision};
use super::prior;
use super::reference::Reference;
use crate::diffusion::prior::Prior;
use crate::error::{Error, Result};
use crate::files::read_limited;

/// The manifest's file name.
const MANIFEST: &str = "model.toml";

/// The longest manifest, in bytes; a table of a thousand betas takes 20 kB.
const MAX_MANIFEST_BYTES: u64 = 1 << 22;

/// A package whose manifest has been read and checked. Its other files are read, and hashed
/// before anything looks into them, when they are asked for.
#[derive(Debug, Clone)]
pub struct Package {
    manifest: Manifest,
    source: Source,
}

/// The files of a package inside the program: name and bytes.
pub type EmbeddedFiles = &'static [(&'static str, &'static [u8])];

#[derive(Debug, Clone)]
enum Source {
    Folder(PathBuf),
    Embedded(EmbeddedFiles),
}

impl Package {
    /// Opens the package in `folder`, whose name must be the manifest's.
    ///
    /// # Errors
    ///
    /// When there is no `model.toml` in it or the manifest is not right.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let source = Source::Folder(folder.to_owned());
        let package = Self::read(source)?;
        let canonical = folder
            .canonicalize()
            .map_err(|e| Error::io(folder, "open", e))?;
        let found = canonical
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let name = &package.manifest.name;
        if *name == found {
            return Ok(package);
        }
        let place = format!("{}: name", package.source.place(MANIFEST));
        Err(Error::unexpected(
            place,
            format!("the folder's name, {found}"),
            name,
        ))
    }

    /// Opens a package that is inside the program.
    ///
    /// # Errors
    ///
    /// When the manifest is not right.
    pub fn embedded(files: EmbeddedFiles) -> Result<Self> {
        Self::read(Source::Embedded(files))
    }

    /// What the package says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The package's folder, or where else it is.
    pub fn place(&self) -> String {
        match &self.source {
            Source::Folder(folder) => folder.display().to_string(),
            Source::Embedded(_) => format!("inside the program: {}", self.manifest.name),
        }
    }

    /// The path, for errors, of the network's file in `precision`.
    ///
    /// # Errors
    ///
    /// When the package has no such file.
    pub fn network_place(&self, precision: Precision) -> Result<String> {
        Ok(self.source.place(&self.manifest.file(precision)?.file))
    }

    /// The verified ONNX bytes of the network in `precision`.
    ///
    /// # Errors
    ///
    /// When the package has no such file, or its length or hash is not the manifest's.
    pub fn network_bytes(&self, precision: Precision) -> Result<Cow<'static, [u8]>> {
        self.verified(&self.manifest.file(precision)?.as_file())
    }

    /// The trainer's trajectory, verified.
    ///
    /// # Errors
    ///
    /// When the file's length or hash is not the manifest's, or its arrays do not fit the model.
    pub fn reference(&self) -> Result<Reference> {
        let file = &self.manifest.reference;
        let bytes = self.verified(file)?;
        Reference::read(&self.source.place(&file.file), &bytes, &self.manifest)
    }

    /// What pictures are like, verified; `None` where the package does not say.
    ///
    /// # Errors
    ///
    /// When the file's length or hash is not the manifest's, or its arrays do not fit the model.
    pub fn prior(&self) -> Result<Option<Prior>> {
        let Some(file) = &self.manifest.prior else {
            return Ok(None);
        };
        let bytes = self.verified(file)?;
        prior::read(&self.source.place(&file.file), &bytes, &self.manifest).map(Some)
    }

    fn read(source: Source) -> Result<Self> {
        let place = source.place(MANIFEST);
        let bytes = source.bytes(MANIFEST, MAX_MANIFEST_BYTES)?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Error::unexpected(&place, "UTF-8 text", "other bytes"))?;
        Ok(Self {
            manifest: Manifest::parse(text, &place)?,
            source,
        })
    }

    fn verified(&self, file: &File) -> Result<Cow<'static, [u8]>> {
        let place = self.source.place(&file.file);
        let bytes = self.source.bytes(&file.file, file.bytes)?;
        if bytes.len() as u64 != file.bytes {
            let expected = format!("{} bytes", file.bytes);
            return Err(Error::unexpected(
                place,
                expected,
                format!("{} bytes", bytes.len()),
            ));
        }
        let found = sha256_hex(&bytes);
        if found == file.sha256 {
            return Ok(bytes);
        }
        let expected = format!("sha256 {}", file.sha256);
        Err(Error::unexpected(
            place,
            expected,
            format!("sha256 {found}"),
        ))
    }
}

impl Source {
    fn place(&self, name: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(name).display().to_string(),
            Self::Embedded(_) => format!("inside the program: {name}"),
        }
    }

    fn bytes(&self, name: &str, limit: u64) -> Result<Cow<'static, [u8]>> {
        match self {
            Self::Folder(folder) => read_limited(folder.join(name), limit).map(Cow::Owned),
            Self::Embedded(files) => {
                let file = files.iter().find(|(known, _)| *known == name);
                let (_, bytes) = file.ok_or_else(|| {
                    Error::unexpected(self.place(name), "a file of that name", "none")
                })?;
                Ok(Cow::Borrowed(*bytes))
            }
        }
    }
}

/// The SHA-256 of `bytes` as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
