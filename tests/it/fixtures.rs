//! Foreign packages, copies of them, and hand-made ONNX files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use driftglass::model::package::sha256_hex;
use driftglass::picture::Picture;
use tempfile::TempDir;

/// The program. Where cargo has been told a runner for this target, as an emulator of another
/// processor is one, the runner starts it: the system itself could not.
pub fn program() -> Command {
    let program = env!("CARGO_BIN_EXE_driftglass");
    let runner = match cfg!(target_arch = "aarch64") {
        true => env::var("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER").unwrap_or_default(),
        false => String::new(),
    };
    let mut words = runner.split_whitespace().chain([program]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// A file or folder below `tests/data`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// The picture of a PNG file.
pub fn picture(path: &Path) -> Picture {
    Picture::decode_png(path.display(), &fs::read(path).unwrap()).unwrap()
}

/// The folders of all foreign packages: diffusers' networks with random weights, and diffusers'
/// own trajectories.
pub fn foreign_packages() -> Vec<PathBuf> {
    let entries = fs::read_dir(data("foreign")).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    assert!(
        folders.len() >= 5,
        "only {} foreign packages",
        folders.len()
    );
    folders
}

/// A package that a test may damage.
pub struct Copy {
    _folder: TempDir,
    pub path: PathBuf,
}

impl Copy {
    /// Copies the foreign package `name`.
    pub fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        for entry in fs::read_dir(data("foreign").join(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
        }
        Self {
            _folder: folder,
            path,
        }
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.path.join(file)).unwrap()
    }

    pub fn write(&self, file: &str, bytes: &[u8]) {
        fs::write(self.path.join(file), bytes).unwrap();
    }

    pub fn manifest(&self) -> String {
        String::from_utf8(self.read("model.toml")).unwrap()
    }

    /// Writes `bytes` and makes the manifest vouch for them.
    pub fn write_vouched(&self, file: &str, bytes: &[u8]) {
        let before = self.read(file);
        let manifest = self
            .manifest()
            .replace(&sha256_hex(&before), &sha256_hex(bytes))
            .replace(
                &format!("bytes = {}", before.len()),
                &format!("bytes = {}", bytes.len()),
            );
        self.write("model.toml", manifest.as_bytes());
        self.write(file, bytes);
    }
}

/// A protobuf message: the smallest writer that can spell an ONNX file, right or wrong.
#[derive(Debug, Clone, Default)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    pub fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.as_ref().len() as u64);
        self.0.extend_from_slice(value.as_ref());
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// ONNX's numbers for element types.
pub const FLOAT: i64 = 1;
pub const INT64: i64 = 7;

/// A `TensorProto` with raw data.
pub fn tensor(name: &str, data_type: i64, dims: &[i64], raw: &[u8]) -> Message {
    let message = dims
        .iter()
        .fold(Message::default(), |message, &dim| message.int(1, dim));
    message.int(2, data_type).bytes(8, name).bytes(9, raw)
}

/// A `ValueInfoProto`; a dimension of -1 is left free.
pub fn value(name: &str, data_type: i64, dims: &[i64]) -> Message {
    let shape = dims.iter().fold(Message::default(), |shape, &dim| {
        let dimension = Message::default();
        shape.bytes(
            1,
            if dim < 0 {
                dimension.bytes(2, "n")
            } else {
                dimension.int(1, dim)
            },
        )
    });
    let tensor = Message::default().int(1, data_type).bytes(2, shape);
    Message::default()
        .bytes(1, name)
        .bytes(2, Message::default().bytes(1, tensor))
}

/// A `NodeProto` without attributes.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    let message = inputs
        .iter()
        .fold(Message::default(), |message, input| message.bytes(1, input));
    let message = outputs
        .iter()
        .fold(message, |message, output| message.bytes(2, output));
    message.bytes(3, outputs[0]).bytes(4, op)
}

/// The parts of a `GraphProto`.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub nodes: Vec<Message>,
    pub initializers: Vec<Message>,
    pub inputs: Vec<Message>,
    pub outputs: Vec<Message>,
}

impl Graph {
    /// `y = x + x` on four floats: the file that the wrong ones differ from in one thing.
    pub fn doubling() -> Self {
        Self {
            nodes: vec![node("Add", &["x", "x"], &["y"])],
            initializers: vec![],
            inputs: vec![value("x", FLOAT, &[4])],
            outputs: vec![value("y", FLOAT, &[4])],
        }
    }

    /// The bytes of a `ModelProto` of operator set `opset`.
    pub fn model(&self, opset: i64) -> Vec<u8> {
        let parts = [
            (1, &self.nodes),
            (5, &self.initializers),
            (11, &self.inputs),
            (12, &self.outputs),
        ];
        let graph = parts.iter().fold(
            Message::default().bytes(2, "graph"),
            |graph, (field, parts)| {
                parts
                    .iter()
                    .fold(graph, |graph, part| graph.bytes(*field, part))
            },
        );
        let opset = Message::default().bytes(1, "").int(2, opset);
        Message::default()
            .int(1, 8)
            .bytes(7, graph)
            .bytes(8, opset)
            .0
    }
}

/// The system's allocator, which counts for each thread.
pub struct Counting;

thread_local! {
    static ALLOCATIONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How often this thread has asked for memory.
pub fn allocations() -> usize {
    ALLOCATIONS.get()
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl std::alloc::GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        // A thread that is ending has no counter any more.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller says.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: std::alloc::Layout) {
        // SAFETY: as the caller says.
        unsafe { std::alloc::System.dealloc(pointer, layout) }
    }
}
