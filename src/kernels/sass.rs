//! What a kernel's machine code (SASS) consists of, as printed by NVIDIA's cuobjdump.
//!
//! The main loop is the innermost loop with the most matrix instructions or, if there are none, with the most instructions;
//! a kernel without loops counts as a whole. An unrolled loop holds several steps of the source's loop, so compare ratios,
//! not counts. Each instruction in the program counts once, predicated or not.

use super::Module;
use crate::input_error;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// HMMA and related instructions.
    Matrix,
    /// From shared memory.
    SharedLoad,
    /// From global and local memory.
    GlobalLoad,
    /// Stores, atomics and asynchronous copies to shared memory.
    SharedStore,
    /// Stores and atomics to global and local memory.
    GlobalStore,
    /// Also waits for asynchronous copies, and the points where a warp's branches reconverge.
    Barrier,
    Branch,
    /// 32-bit and 64-bit floating point.
    Float,
    /// 16-bit floating point, two at a time.
    Half,
    Convert,
    /// Between the lanes of a warp.
    Shuffle,
    Integer,
    Move,
    Other,
}

impl Class {
    /// Every class, in this order.
    pub const ALL: [Self; 14] = [
        Self::Matrix,
        Self::SharedLoad,
        Self::GlobalLoad,
        Self::SharedStore,
        Self::GlobalStore,
        Self::Barrier,
        Self::Branch,
        Self::Float,
        Self::Half,
        Self::Convert,
        Self::Shuffle,
        Self::Integer,
        Self::Move,
        Self::Other,
    ];

    /// Its column heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::Matrix => "matrix",
            Self::SharedLoad => "lds",
            Self::GlobalLoad => "ldg",
            Self::SharedStore => "sts",
            Self::GlobalStore => "stg",
            Self::Barrier => "barrier",
            Self::Branch => "branch",
            Self::Float => "float",
            Self::Half => "half",
            Self::Convert => "convert",
            Self::Shuffle => "shuffle",
            Self::Integer => "integer",
            Self::Move => "move",
            Self::Other => "other",
        }
    }

    /// The class of an instruction's name without what follows a dot.
    fn of(name: &str) -> Self {
        let scalar = name.strip_prefix('U').unwrap_or(name);
        match name {
            _ if name.ends_with("MMA") => return Self::Matrix,
            "LDS" | "LDSM" | "ULDS" => return Self::SharedLoad,
            "LDG" | "LD" | "LDL" | "UTMALDG" | "UBLKCP" => return Self::GlobalLoad,
            "STS" | "STSM" | "LDGSTS" | "ATOMS" => return Self::SharedStore,
            "STG" | "ST" | "STL" | "RED" | "REDG" | "ATOM" | "ATOMG" | "UTMASTG" => return Self::GlobalStore,
            "BAR" | "LDGDEPBAR" | "DEPBAR" | "WARPSYNC" | "SYNCS" | "MEMBAR" | "ERRBAR" | "FENCE" | "CCTL" | "BSSY"
            | "BSYNC" | "WARPGROUP" | "B2R" | "NANOSLEEP" | "YIELD" => return Self::Barrier,
            "BRA" | "BRX" | "BRXU" | "JMP" | "CALL" | "RET" | "EXIT" | "BREAK" | "KILL" | "BPT" => return Self::Branch,
            "FADD" | "FMUL" | "FFMA" | "FSETP" | "FSET" | "FSEL" | "FMNMX" | "FMNMX3" | "FCHK" | "FSWZADD" | "MUFU"
            | "FADD2" | "FMUL2" | "FFMA2" | "DADD" | "DMUL" | "DFMA" | "DSETP" => return Self::Float,
            "HADD2" | "HMUL2" | "HFMA2" | "HSETP2" | "HSET2" | "HMNMX2" => return Self::Half,
            "F2F" | "F2FP" | "F2I" | "I2F" | "I2FP" | "I2I" | "FRND" | "I2IP" => return Self::Convert,
            "SHFL" | "VOTE" | "VOTEU" | "MATCH" | "REDUX" => return Self::Shuffle,
            "R2UR" | "S2UR" => return Self::Move,
            _ => {}
        }
        match scalar {
            "IMAD" | "LOP3" | "LOP" | "PLOP3" | "SHF" | "SHL" | "SHR" | "PRMT" | "IADD3" | "IADD" | "LEA" | "ISETP"
            | "IMNMX" | "VIMNMX" | "VIMNMX3" | "VIADD" | "VIADDMNMX" | "SEL" | "POPC" | "FLO" | "BREV" | "BMSK"
            | "SGXT" | "IABS" | "IDP" | "IDP4A" | "P2R" | "R2P" | "I2UR" | "BITEXTRACT" => Self::Integer,
            "MOV" | "MOVM" | "CS2R" | "S2R" | "LDC" | "LDCU" => Self::Move,
            _ => Self::Other,
        }
    }
}

/// The main loop of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loop {
    /// Instructions of each class that occurs.
    pub classes: BTreeMap<Class, u32>,
    /// Whether it is a loop; otherwise it is the whole kernel.
    pub loops: bool,
}

impl Loop {
    pub fn count(&self, class: Class) -> u32 {
        self.classes.get(&class).copied().unwrap_or(0)
    }

    /// Instructions of all classes.
    pub fn instructions(&self) -> u32 {
        self.classes.values().sum()
    }
}

struct Instruction {
    address: u64,
    class: Class,
    /// Where it may jump.
    target: Option<u64>,
}

/// The main loops of a module's kernels on an architecture such as `90`, by the kernels' names.
///
/// # Errors
/// If there is no cuobjdump, or it fails.
pub fn main_loops(module: &Module, arch: &str) -> Result<BTreeMap<String, Loop>> {
    let text = disassemble(module, arch)?;
    Ok(parse(&text).into_iter().map(|(kernel, code)| (kernel, main_loop(&code))).collect())
}

fn disassemble(module: &Module, arch: &str) -> Result<String> {
    let folder = tool_folder()?;
    let mut file = tempfile::Builder::new().suffix(".fatbin").tempfile().context("no temporary file")?;
    file.write_all(module.fatbin).context("cannot write a temporary file")?;
    // cuobjdump calls nvdisasm.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(folder.clone()).chain(std::env::split_paths(&path)))?;
    let output = Command::new(folder.join("cuobjdump"))
        .args(["-sass", "-arch", &format!("sm_{arch}")])
        .arg(file.path())
        .env("PATH", path)
        .output()
        .context("cannot run cuobjdump")?;
    if !output.status.success() {
        bail!("cuobjdump failed on {}: {}", module.name, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The folder of cuobjdump: $CUDA_HOME/bin, one in PATH, /usr/local/cuda/bin or .cuda/bin.
fn tool_folder() -> Result<PathBuf> {
    let home = std::env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/cuda/bin", ".cuda/bin"].map(PathBuf::from);
    home.into_iter()
        .chain(std::env::split_paths(&path))
        .chain(usual)
        .find(|folder| folder.join("cuobjdump").is_file())
        .and_then(|folder| folder.canonicalize().ok())
        .ok_or_else(|| {
            input_error!(
                "cuobjdump is neither in $CUDA_HOME/bin, PATH, /usr/local/cuda/bin nor .cuda/bin; run `make cuda` where the \
                 program was built"
            )
        })
}

/// The code of each function.
fn parse(text: &str) -> BTreeMap<String, Vec<Instruction>> {
    let mut kernels = BTreeMap::new();
    let mut code: Option<&mut Vec<Instruction>> = None;
    for line in text.lines() {
        if let Some((_, name)) = line.split_once("Function : ") {
            code = Some(kernels.entry(name.trim().to_string()).or_default());
        } else if let (Some(code), Some(instruction)) = (&mut code, instruction(line)) {
            code.push(instruction);
        }
    }
    kernels
}

/// Parses `/*0070*/ @!P0 BRA 0x160 ; /* encoding */`; `None` for lines that are not instructions, and for NOP.
fn instruction(line: &str) -> Option<Instruction> {
    let (address, rest) = line.trim_start().strip_prefix("/*")?.split_once("*/")?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let mut words = rest.split_once(';')?.0.split_whitespace();
    let mut first = words.next()?;
    if first.starts_with('@') {
        first = words.next()?;
    }
    let name = first.split('.').next()?;
    if name == "NOP" || !name.starts_with(|c: char| c.is_ascii_uppercase()) {
        return None;
    }
    let target = matches!(name, "BRA" | "JMP").then(|| words.last()).flatten();
    let target = target.and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    Some(Instruction { address, class: Class::of(name), target })
}

fn main_loop(code: &[Instruction]) -> Loop {
    let jumps = code.iter().filter_map(|i| i.target.filter(|&target| target < i.address).map(|to| (to, i.address)));
    let body = |&(first, last): &(u64, u64)| code.iter().filter(move |i| (first..=last).contains(&i.address));
    let size = |span: &(u64, u64)| (body(span).filter(|i| i.class == Class::Matrix).count(), body(span).count());
    let mut loops: Vec<(u64, u64)> = jumps.collect();
    // A loop without matrix instructions, such as a wait, does not keep the loop around it from being the main one.
    if loops.iter().any(|span| size(span).0 > 0) {
        loops.retain(|span| size(span).0 > 0);
    }
    let inside = |inner: &(u64, u64), outer: &(u64, u64)| inner != outer && outer.0 <= inner.0 && inner.1 <= outer.1;
    let innermost = loops.iter().filter(|span| !loops.iter().any(|other| inside(other, span)));
    let main = innermost.max_by_key(|span| size(span));
    let mut classes = BTreeMap::new();
    let whole = (0, u64::MAX);
    body(main.unwrap_or(&whole)).for_each(|i| *classes.entry(i.class).or_default() += 1);
    Loop { classes, loops: main.is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
        Function : twice
        /*0000*/                   LDC R1, c[0x0][0x28] ;          /* 0x00000a00ff017b82 */
                                                                   /* 0x000ff00000000800 */
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0030*/              @!P0 IMAD.WIDE R2, R3, 0x2, R2 ;
        /*0040*/                   UIADD3 UR4, UR4, 0x1, URZ ;
        /*0050*/               @P0 BRA 0x50 ;
        /*0060*/               @P1 BRA `(.L_x_1) ;
        /*0070*/               @P1 BRA 0x10 ;
        /*0080*/                   STG.E desc[UR4][R2.64], R4 ;
        /*0090*/               @P2 BRA 0x0 ;
        /*00a0*/                   EXIT ;
        /*00b0*/                   NOP;
        Function : straight
        /*0000*/                   FADD R1, R2, R3 ;
        /*0010*/                   EXIT ;
";

    #[test]
    fn the_main_loop_is_the_innermost_that_multiplies() {
        let code = parse(TEXT);
        let twice = main_loop(&code["twice"]);
        assert!(twice.loops);
        assert_eq!(twice.instructions(), 7);
        let counted = [Class::Matrix, Class::GlobalLoad, Class::Integer, Class::Branch, Class::GlobalStore];
        assert_eq!(counted.map(|class| twice.count(class)), [1, 1, 2, 3, 0]);
        let straight = main_loop(&code["straight"]);
        assert_eq!((straight.loops, straight.instructions(), straight.count(Class::Float)), (false, 2, 1));
    }

    #[test]
    fn classes_are_listed_in_order() {
        assert!(Class::ALL.is_sorted());
        assert!(Class::ALL.iter().all(|class| !class.name().is_empty()));
        let named = ["ULOP3", "R2UR", "UMOV", "USHF", "LDSM", "IGMMA", "FROBNICATE"].map(Class::of);
        use Class::*;
        assert_eq!(named, [Integer, Move, Move, Integer, SharedLoad, Matrix, Other]);
    }
}
