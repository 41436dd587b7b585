//! The program as a process.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Upper limit for any command of these tests; one that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(100);

/// The result of a command.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    what: String,
}

/// The program in the folder `cwd`, with its arguments separated by blanks.
pub fn command(cwd: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adali"));
    command.current_dir(cwd).args(arguments.split_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_BACKTRACE");
    command
}

/// Runs a command to its end.
pub fn run(mut command: Command) -> Ran {
    let what = format!("{command:?}");
    finish(command.spawn().unwrap(), &what)
}

/// Waits for a process while reading its output: a full pipe would block it.
pub fn finish(mut child: Child, what: &str) -> Ran {
    fn read(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    let (out, err) = (read(child.stdout.take()), read(child.stderr.take()));
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{what} hangs");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let [out, err] = [out, err].map(|reader| reader.join().unwrap());
    let ran = Ran { code: child.wait().unwrap().code(), out, err, what: what.to_string() };
    assert!(!ran.err.contains("panicked") && !ran.err.contains("memory allocation"), "{ran}");
    ran
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}\nexit code {:?}\nstdout: {}\nstderr: {}", self.what, self.code, self.out, self.err)
    }
}

impl Ran {
    /// Checks that it succeeded with nothing on standard error.
    pub fn done(self) -> Self {
        assert!(self.code == Some(0) && self.err.is_empty(), "{self}");
        self
    }

    /// Checks that it failed with this code and one line that names all of `parts`.
    pub fn failed(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        assert!(self.err.starts_with("error: ") && self.err.lines().count() == 1, "not one line: {self}");
        assert!(parts.iter().all(|part| self.err.contains(part)), "one of {parts:?} is missing: {self}");
        self
    }
}

pub fn bytes(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}
