//! Where files of boards and panels are looked for; all of ours are embedded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use super::{Board, Panel};
use crate::error::{Error, Result};
use crate::files::read_limited;

/// Where the files are installed.
const SYSTEM_FOLDER: &str = "/usr/share/driftglass/boards";

/// The largest file of a board or a panel, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 16;

/// All of `boards/`, inside the program.
static EMBEDDED: Dir = include_dir!("$CARGO_MANIFEST_DIR/boards");

/// Folders of boards, the first one first, and the embedded one behind them. The panels lie in the
/// folder `panels` in each.
#[derive(Debug, Clone)]
pub struct Library {
    folders: Vec<PathBuf>,
}

/// Which of the files.
#[derive(Debug, Clone, Copy)]
enum Shelf {
    Boards,
    Panels,
}

impl Shelf {
    fn folder(self) -> &'static str {
        match self {
            Self::Boards => "",
            Self::Panels => "panels",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Boards => "board",
            Self::Panels => "panel",
        }
    }
}

impl Library {
    /// Looks into `given`, then into `boards` beside the program, then where they are installed,
    /// then into the program itself.
    pub fn new(given: Option<PathBuf>) -> Self {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.join("boards")));
        let folders = given.into_iter().chain(beside);
        Self {
            folders: folders.chain([SYSTEM_FOLDER.into()]).collect(),
        }
    }

    /// Looks into the program itself, and nowhere else.
    pub fn embedded() -> Self {
        Self {
            folders: Vec::new(),
        }
    }

    /// Reads the board called `name`; what holds a `/` or ends in ".toml" is a file's path.
    ///
    /// # Errors
    ///
    /// When there is no such board (the sentence lists those there are), or its file is not right.
    pub fn board(&self, name: &str) -> Result<Board> {
        let (place, text) = self.read(Shelf::Boards, name)?;
        Board::parse(&place, &text)
    }

    /// Reads the panel called `name`; what holds a `/` or ends in ".toml" is a file's path.
    ///
    /// # Errors
    ///
    /// When there is no such panel (the sentence lists those there are), or its file is not right.
    pub fn panel(&self, name: &str) -> Result<Panel> {
        let (place, text) = self.read(Shelf::Panels, name)?;
        Panel::parse(&place, &text)
    }

    /// The text of the file of a board, or else of a panel.
    ///
    /// # Errors
    ///
    /// When there is neither, or the file cannot be read.
    pub fn text(&self, name: &str) -> Result<String> {
        let is_board = self.board_names()?.iter().any(|board| board == name);
        let shelf = if is_board {
            Shelf::Boards
        } else {
            Shelf::Panels
        };
        Ok(self.read(shelf, name)?.1)
    }

    /// The names of all boards, sorted.
    ///
    /// # Errors
    ///
    /// When a folder is there but cannot be listed.
    pub fn board_names(&self) -> Result<Vec<String>> {
        self.names(Shelf::Boards)
    }

    /// The names of all panels, sorted.
    ///
    /// # Errors
    ///
    /// When a folder is there but cannot be listed.
    pub fn panel_names(&self) -> Result<Vec<String>> {
        self.names(Shelf::Panels)
    }

    /// All boards, by name.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or is not right.
    pub fn boards(&self) -> Result<BTreeMap<String, Board>> {
        let names = self.board_names()?.into_iter();
        names
            .map(|name| Ok((name.clone(), self.board(&name)?)))
            .collect()
    }

    /// All panels, by name.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or is not right.
    pub fn panels(&self) -> Result<BTreeMap<String, Panel>> {
        let names = self.panel_names()?.into_iter();
        names
            .map(|name| Ok((name.clone(), self.panel(&name)?)))
            .collect()
    }

    /// The path and the text of a file.
    fn read(&self, shelf: Shelf, name: &str) -> Result<(String, String)> {
        if name.contains('/') || name.ends_with(".toml") {
            return read_file(Path::new(name));
        }
        let file = format!("{name}.toml");
        let paths = self
            .folders
            .iter()
            .map(|folder| folder.join(shelf.folder()).join(&file));
        if let Some(path) = paths.into_iter().find(|path| path.is_file()) {
            return read_file(&path);
        }
        let path = Path::new(shelf.folder()).join(&file);
        let embedded = EMBEDDED
            .get_file(&path)
            .and_then(|file| file.contents_utf8());
        match embedded {
            Some(text) => {
                let place = Path::new("boards").join(path);
                Ok((place.display().to_string(), text.to_owned()))
            }
            None => {
                let known = self.names(shelf).unwrap_or_default().join(", ");
                let expected = format!("one of {known}, or a file's path");
                Err(Error::unexpected(shelf.noun(), expected, name))
            }
        }
    }

    fn names(&self, shelf: Shelf) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for folder in &self.folders {
            names.extend(names_in(&folder.join(shelf.folder()))?);
        }
        let embedded = match shelf {
            Shelf::Boards => Some(&EMBEDDED),
            Shelf::Panels => EMBEDDED.get_dir(shelf.folder()),
        };
        let files = embedded.into_iter().flat_map(Dir::files);
        names.extend(files.filter_map(|file| name_of(file.path())));
        Ok(names.into_iter().collect())
    }
}

fn read_file(path: &Path) -> Result<(String, String)> {
    let place = path.display().to_string();
    let bytes = read_limited(path, MAX_FILE_BYTES)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok((place, text)),
        Err(_) => Err(Error::unexpected(place, "text in UTF-8", "other bytes")),
    }
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::io(folder, "list", error);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(name_of(&entry.map_err(failed)?.path()));
    }
    Ok(names)
}

/// The stem of a TOML file's name; editors leave hidden files beside theirs.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(".toml")?;
    (!stem.starts_with('.')).then(|| stem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_file_is_embedded_and_is_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards");
        let library = Library::embedded();
        let again = "touch src/board/library.rs and build again";
        assert_eq!(
            names_in(&root).unwrap().len(),
            library.board_names().unwrap().len(),
            "{again}"
        );
        let panels = names_in(&root.join("panels")).unwrap();
        assert_eq!(
            panels.len(),
            library.panel_names().unwrap().len(),
            "{again}"
        );
        for name in names_in(&root).unwrap() {
            library.board(&name).unwrap();
        }
        for name in panels {
            library.panel(&name).unwrap();
        }
    }

    #[test]
    fn a_folder_comes_before_what_is_embedded() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library {
            folders: vec![folder.path().to_owned()],
        };
        assert_eq!(library.board("host").unwrap().name, "This computer");
        let host = EMBEDDED
            .get_file("host.toml")
            .unwrap()
            .contents_utf8()
            .unwrap();
        let own = host.replace("This computer", "My computer");
        fs::write(folder.path().join("host.toml"), &own).unwrap();
        fs::write(folder.path().join("mine.toml"), &own).unwrap();
        fs::write(folder.path().join(".mine.toml"), "left by an editor").unwrap();
        assert_eq!(library.board("host").unwrap().name, "My computer");
        assert!(library.board_names().unwrap().contains(&"mine".to_owned()));
        let path = folder.path().join("mine.toml");
        assert_eq!(
            library.board(path.to_str().unwrap()).unwrap().name,
            "My computer"
        );
    }

    #[test]
    fn what_is_not_there_or_no_text_is_named() {
        let library = Library::embedded();
        let error = library.board("pi").unwrap_err().to_string();
        assert!(
            error.starts_with("board: expected one of generic-aarch64, host"),
            "{error}"
        );
        let error = library.panel("screen").unwrap_err().to_string();
        assert!(error.starts_with("panel: expected one of") && error.ends_with("found screen"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        fs::write(&path, vec![0xff; 100]).unwrap();
        let error = library
            .board(path.to_str().unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("a.toml: expected text in UTF-8, found other bytes"),
            "{error}"
        );
        fs::write(&path, vec![b'#'; 1 << 17]).unwrap();
        let error = library
            .panel(path.to_str().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains("expected at most 65536 bytes"), "{error}");
    }
}
