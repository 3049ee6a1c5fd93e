//! House rules no compiler holds: who uses whom, how a file begins.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Crates that only one room may name.
const OWNED: &[(&str, &str)] = &[
    ("tract_onnx", "engine"),
    ("tract_linalg", "engine"),
    ("prost", "engine"),
    ("clap", "cli"),
    ("anyhow", "cli"),
    ("png", "picture"),
    ("zip", "npz"),
    ("mipidsi", "display"),
    ("linux_embedded_hal", "display"),
    ("gpiocdev", "display"),
    ("winit", "display"),
    ("softbuffer", "display"),
    ("rustix", "display"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// `src/engine/graph.rs` is in the room `engine`.
fn room(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).unwrap();
    let first = relative.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The table of ARCHITECTURE.md: a room, and the rooms it may use.
fn table() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let quoted = |cell: &str| -> Vec<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let rows = text.lines().filter(|line| line.starts_with("| `src/"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let room = quoted(cells[0]).remove(0);
        let room = room
            .trim_start_matches("src/")
            .trim_end_matches(".rs")
            .to_owned();
        (room, quoted(cells[2]))
    })
    .collect()
}

/// The rooms that code names through `crate::`, also in groups over several lines.
fn used_rooms(text: &str) -> Vec<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join(" ");
    let mut rooms = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(group) => split_group(group),
            None => vec![rest],
        };
        rooms.extend(names.into_iter().map(|name| {
            let name = name.trim();
            let end = name
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(name.len());
            name[..end].to_owned()
        }));
    }
    rooms.retain(|name| !name.is_empty());
    rooms
}

/// The members of `a, b::{c, d}, e} ...`, without the inner groups' own.
fn split_group(group: &str) -> Vec<&str> {
    let (mut members, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    members
}

#[test]
fn paths_are_found_however_they_are_written() {
    let code = "use crate::engine::UNet;\n// crate::comment\nuse crate::{\n    model::{A, B},\n    npz,\n};";
    assert_eq!(used_rooms(code), ["engine", "model", "npz"]);
}

#[test]
fn rooms_are_used_from_above_only() {
    let table = table();
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), "rs") {
        let from = room(&path);
        if from == "lib" {
            continue;
        }
        let Some(allowed) = table.get(&from) else {
            wrong.push(format!(
                "{}: `{from}` is not in ARCHITECTURE.md",
                path.display()
            ));
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("driftglass::", "crate::");
        for used in used_rooms(&text) {
            if used != from && !allowed.contains(&used) && table.contains_key(&used) {
                wrong.push(format!("{}: `{from}` uses `{used}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_dependency_with_an_owner_is_named_in_one_room() {
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), "rs") {
        let here = room(&path);
        let text = fs::read_to_string(&path).unwrap();
        for (dependency, owner) in OWNED {
            let named = text.lines().any(|line| {
                let line = line.trim_start();
                !line.starts_with("//") && line.contains(&format!("{dependency}::"))
            });
            // main.rs is where the command line starts.
            if named && here != *owner && here != "main" {
                wrong.push(format!(
                    "{}: names {dependency}, which is `{owner}`'s",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_source_file_begins_with_a_tagline() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests"] {
        for path in files(&root().join(folder), "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let first = text.lines().next().unwrap_or_default();
            if !first.starts_with("//! ") || first.chars().count() > 80 + "//! ".len() {
                wrong.push(format!("{}: `{first}`", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "a first line `//! ...` is missing:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_dependency_has_its_reason_beside_it() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut in_dependencies = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        } else if in_dependencies && !line.trim().is_empty() {
            assert!(
                line.contains(" # "),
                "Cargo.toml: no reason beside `{line}`"
            );
        }
    }
}

#[test]
fn a_bare_cross_reads_what_cross_toml_says() {
    let read = |name: &str| -> toml::Table {
        let text = fs::read_to_string(root().join(name)).unwrap();
        toml::from_str(&text).unwrap()
    };
    let (file, manifest) = (read("cross.toml"), read("Cargo.toml"));
    assert_eq!(
        manifest["package"]["metadata"]["cross"].as_table(),
        Some(&file),
        "Cargo.toml: package.metadata.cross is not what cross.toml says"
    );
    for (target, settings) in file["target"].as_table().unwrap() {
        let name = settings["dockerfile"].as_str().unwrap();
        let text = fs::read_to_string(root().join(name)).unwrap();
        let image = text.lines().find(|line| line.starts_with("FROM ")).unwrap();
        let digest = image.split_once("@sha256:").map_or(0, |(_, hex)| hex.len());
        assert_eq!(digest, 64, "{name}: `{image}` is not pinned by its digest");
        let linker = format!(
            "CARGO_TARGET_{}_LINKER=",
            target.to_uppercase().replace('-', "_")
        );
        assert!(text.contains(&linker), "{name}: no {linker}");
    }
}

#[test]
fn the_changelog_knows_this_version() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let heading = format!("## {}", env!("CARGO_PKG_VERSION"));
    assert!(
        changelog.contains(&heading),
        "CHANGELOG.md: no heading `{heading}`"
    );
}

#[test]
fn every_model_is_whole_and_light() {
    let mut total = 0;
    for entry in fs::read_dir(root().join("models")).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        for name in ["model.toml", "README.md", "reference.npz", "samples.png"] {
            assert!(
                folder.join(name).is_file(),
                "{}: no {name}",
                folder.display()
            );
        }
        for file in fs::read_dir(&folder).unwrap() {
            total += file.unwrap().metadata().unwrap().len();
        }
    }
    assert!(
        total < 60_000_000,
        "all models together: {total} bytes, at most 60 MB are allowed"
    );
}

#[test]
fn text_files_name_no_place_of_one_machine() {
    // Written apart, so that this file does not find itself.
    let places = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
    ];
    let mut wrong = Vec::new();
    for folder in ["src", "scripts", "models", "tests", ".ci", "docs"] {
        let folder = root().join(folder);
        if !folder.is_dir() {
            continue;
        }
        for ending in ["rs", "py", "md", "toml", "json", "txt", "csv"] {
            for path in files(&folder, ending) {
                let text = fs::read_to_string(&path).unwrap();
                if places.iter().any(|place| text.contains(place)) {
                    wrong.push(path.display().to_string());
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "paths of one machine in:\n{}",
        wrong.join("\n")
    );
}
