//! Files that are whole or absent, and reading that cannot eat the memory.
//!
//! A frame's plug is pulled every night: whoever writes goes through [`write_whole`], so that a
//! power cut leaves either the old file or the new one. Whoever reads a file made elsewhere goes
//! through [`read_limited`].

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Writes `bytes` to `path` so that the file is whole or was never touched.
///
/// The bytes go to a hidden file beside it, reach the disk, and are then renamed over `path`. A
/// symbolic link is followed; a device or a pipe (`/dev/stdout`) cannot be replaced and is
/// written straight into.
///
/// # Errors
///
/// When the folder does not exist, `path` is a folder, or the operating system refuses.
pub fn write_whole(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    // Renaming over a link would replace the link: with `/dev/stdout` that would be a disaster.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let failed = |source| Error::io(path, "write", source);
    match fs::metadata(&target) {
        Ok(found) if found.is_dir() => {
            return Err(Error::unexpected(
                path.display(),
                "a file to write",
                "a folder",
            ));
        }
        Ok(found) if !found.is_file() => {
            let mut device = OpenOptions::new()
                .write(true)
                .open(&target)
                .map_err(failed)?;
            return device.write_all(bytes).map_err(failed);
        }
        _ => {}
    }
    let folder = folder_of(&target);
    check_folder(path, folder)?;
    let temporary = temporary_beside(&target);
    let written = create_synced(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, &target))
        .map_err(failed);
    if written.is_err() {
        // The first error is the one worth telling; the leftover may not even exist.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // The new name itself must survive the power cut. Some file systems cannot sync a folder,
    // and the file is whole either way.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Reads all of `path`, which may hold at most `limit_bytes`.
///
/// # Errors
///
/// When `path` is a folder, holds more than the limit, or the operating system refuses.
pub fn read_limited(path: impl AsRef<Path>, limit_bytes: u64) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let failed = |source| Error::io(path, "read", source);
    let too_large = |found| {
        Error::unexpected(
            path.display(),
            format!("at most {limit_bytes} bytes"),
            found,
        )
    };
    // Opening a pipe that nobody writes to would wait for ever.
    let metadata = fs::metadata(path).map_err(failed)?;
    if is_pipe(&metadata) {
        return Err(Error::unexpected(
            path.display(),
            "a file to read",
            "a pipe",
        ));
    }
    let file = File::open(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::unexpected(
            path.display(),
            "a file to read",
            "a folder",
        ));
    }
    if metadata.len() > limit_bytes {
        return Err(too_large(metadata.len().to_string()));
    }
    // A file may grow while it is read.
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(too_large("more".to_owned()));
    }
    Ok(bytes)
}

#[cfg(unix)]
fn is_pipe(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_fifo()
}

#[cfg(not(unix))]
fn is_pipe(_: &fs::Metadata) -> bool {
    false
}

/// Makes `folder` where it is missing, and tries that a file can be written into it.
///
/// # Errors
///
/// When the operating system refuses.
pub fn create_folder(folder: impl AsRef<Path>) -> Result<()> {
    let folder = folder.as_ref();
    fs::create_dir_all(folder).map_err(|error| Error::io(folder, "create", error))?;
    let trial = temporary_beside(&folder.join("trial"));
    let written = File::create_new(&trial).map_err(|error| Error::io(folder, "write into", error));
    written.map(|_| {
        // Empty and hidden: leaving it behind harms nobody.
        let _ = fs::remove_file(&trial);
    })
}

/// The folder that holds `path`; "." for a bare file name.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn check_folder(path: &Path, folder: &Path) -> Result<()> {
    let found = match fs::metadata(folder) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "a file of that name",
        Err(error) if error.kind() == io::ErrorKind::NotFound => "no such folder",
        Err(error) => return Err(Error::io(folder, "open", error)),
    };
    let expected = format!("the folder {} to write into", folder.display());
    Err(Error::unexpected(path.display(), expected, found))
}

/// A name that no other thread or process uses: hidden, so that no gallery lists it.
fn temporary_beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{count}.tmp", std::process::id()));
    path.with_file_name(name)
}

fn create_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // After a power cut, a process of the same number may have left the same name behind.
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    }

    #[test]
    fn writes_replace_the_file_and_leave_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        for bytes in [&b"first"[..], b"", b"third, longer"] {
            write_whole(&path, bytes).unwrap();
            assert_eq!(read_limited(&path, 100).unwrap(), bytes);
        }
        assert_eq!(names(folder.path()), ["a.png"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let missing = write_whole(folder.path().join("no/a.png"), b"x")
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("no/a.png: expected the folder"),
            "{missing}"
        );
        assert!(missing.ends_with("found no such folder"), "{missing}");
        let into_folder = write_whole(folder.path(), b"x").unwrap_err().to_string();
        assert!(into_folder.ends_with("expected a file to write, found a folder"));
        write_whole(folder.path().join("file"), b"x").unwrap();
        let under_file = write_whole(folder.path().join("file/a.png"), b"x").unwrap_err();
        assert!(under_file.to_string().contains("file"), "{under_file}");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_devices_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real"), folder.path().join("link"));
        write_whole(&file, b"old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_whole(&link, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

        let null = folder.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &null).unwrap();
        write_whole(&null, b"gone").unwrap();
        assert!(!fs::metadata(&null).unwrap().is_file());
    }

    #[test]
    fn many_threads_may_write_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture");
        std::thread::scope(|scope| {
            for byte in 0..8 {
                let path = &path;
                scope.spawn(move || write_whole(path, &vec![byte; 10_000]).unwrap());
            }
        });
        let bytes = read_limited(&path, 10_000).unwrap();
        assert!(bytes.len() == 10_000 && bytes.iter().all(|byte| *byte == bytes[0]));
        assert_eq!(names(folder.path()), ["picture"]);
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big");
        write_whole(&path, &[7; 11]).unwrap();
        assert_eq!(read_limited(&path, 11).unwrap().len(), 11);
        let error = read_limited(&path, 10).unwrap_err().to_string();
        assert!(
            error.ends_with("big: expected at most 10 bytes, found 11"),
            "{error}"
        );
        assert!(read_limited(folder.path(), 10).is_err());
        assert!(read_limited(folder.path().join("absent"), 10).is_err());
        #[cfg(unix)] // A device has no length of its own and never ends.
        assert!(
            read_limited("/dev/zero", 1000)
                .unwrap_err()
                .to_string()
                .ends_with("found more")
        );
    }
}
