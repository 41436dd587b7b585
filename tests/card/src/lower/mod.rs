//! Statements to instructions: registers numbered, immediates in constant registers, branches resolved, calls inlined.

mod access;
mod operation;

use crate::ops::{Op, TABLE};
use crate::parse::{Function, Module, Operand, Operation, Statement};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Static shared memory that a kernel may have, in bytes.
const STATIC_SHARED: u32 = 48 << 10;

/// In an operand: the index refers to a constant.
pub const CONSTANT: u32 = 1 << 31;

/// Flags of an instruction.
pub const WIDE: u8 = 1;
pub const WIDE_ADDRESS: u8 = 2;
pub const SIGNED: u8 = 4;
pub const TRANSPOSED: u8 = 8;
pub const BF16: u8 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Space {
    Generic,
    Global,
    Shared,
    Parameter,
}

#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    pub op: Op,
    pub space: Space,
    /// Bytes per element.
    pub width: u8,
    /// Elements of a vector, or bytes of a copy.
    pub count: u8,
    pub flags: u8,
    /// 0 for none; otherwise twice the predicate's index, plus one if negated, plus one.
    pub guard: u32,
    pub d: u32,
    pub a: u32,
    pub b: u32,
    pub c: u32,
    /// A branch's target, an index into `lists`, or a number.
    pub x: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    P,
    R,
    D,
}

pub struct Kernel {
    pub name: String,
    pub code: Vec<Instruction>,
    /// For each instruction, its PTX line, and the source file and line.
    pub places: Vec<(u32, (u16, u32))>,
    pub files: HashMap<u16, String>,
    pub lists: Vec<u32>,
    pub constants32: Vec<u32>,
    pub constants64: Vec<u64>,
    /// Number of registers of each class.
    pub registers: [u32; 3],
    /// Bytes of static shared memory, and the base and bytes of each variable in it.
    pub shared: u32,
    pub windows: Vec<(u32, u32)>,
    /// Offset and bytes of each parameter.
    pub parameters: Vec<(u32, u32)>,
    pub parameter_bytes: u32,
    pub max_threads: u32,
}

impl Kernel {
    pub fn place(&self, pc: usize) -> String {
        let (line, (file, source)) = self.places[pc];
        let file = self.files.get(&file).map_or("?", |name| name.rsplit('/').next().unwrap_or(name));
        format!("{} (PTX line {line}, {file}:{source}, {:?})", self.name, self.code[pc].op)
    }
}

static OPERATIONS: LazyLock<HashMap<&'static str, (Op, &'static str)>> =
    LazyLock::new(|| TABLE.iter().map(|&(name, op, signature)| (name, (op, signature))).collect());

#[derive(Clone, Copy)]
enum Symbol {
    Register(Class, u32),
    Shared(u32),
    Parameter(u32),
}

#[derive(Default)]
struct Scope<'a> {
    /// Prefix, class, first index, count.
    ranges: Vec<(&'a str, Class, u32, u32)>,
    names: HashMap<&'a str, Symbol>,
}

struct Lowering<'a> {
    module: &'a Module<'a>,
    kernel: Kernel,
    index32: HashMap<u32, u32>,
    index64: HashMap<u64, u32>,
    scopes: Vec<Scope<'a>>,
    line: u32,
}

/// Labels of one body, and branches to them.
#[derive(Default)]
struct Body<'a> {
    labels: HashMap<&'a str, u32>,
    branches: Vec<(usize, &'a str)>,
    /// Branches to the end, if the body is inlined.
    returns: Vec<usize>,
    inlined: bool,
}

/// Each shared variable has its own window of addresses, so that running past the end of one cannot reach another. The first
/// window is left free, the second is the launch's dynamic memory.
pub const WINDOW_BITS: u32 = 20;

pub fn lower<'a>(module: &'a Module<'a>, name: &str) -> Result<Kernel, String> {
    let function = module.functions.get(name).ok_or_else(|| format!("no kernel {name}"))?;
    let mut parameters = Vec::new();
    let mut parameter_bytes = 0u32;
    let mut scope = Scope::default();
    for (name, align, bytes) in &function.parameters {
        let at = parameter_bytes.next_multiple_of((*align).max(1));
        parameters.push((at, *bytes));
        parameter_bytes = at + bytes;
        scope.names.insert(name, Symbol::Parameter(at));
    }
    for name in &module.dynamic {
        scope.names.insert(name, Symbol::Shared(1 << WINDOW_BITS));
    }
    let kernel = Kernel {
        name: name.to_string(),
        code: Vec::new(),
        places: Vec::new(),
        files: module.files.iter().map(|(number, name)| (*number, name.to_string())).collect(),
        lists: Vec::new(),
        constants32: Vec::new(),
        constants64: Vec::new(),
        registers: [0; 3],
        shared: 0,
        windows: Vec::new(),
        parameters,
        parameter_bytes,
        max_threads: function.max_threads,
    };
    let (index32, index64) = (HashMap::new(), HashMap::new());
    let mut lowering = Lowering { module, kernel, index32, index64, scopes: vec![scope], line: 0 };
    for &(name, align, bytes) in &module.shared {
        if module.tokens[function.body.clone()].iter().any(|token| token.text == name) {
            let at = lowering.window(align, bytes);
            lowering.scopes[0].names.insert(name, Symbol::Shared(at));
        }
    }
    let result = lowering.body(function, false);
    result.map_err(|error| format!("{name}, PTX line {}: {error}", lowering.line))?;
    let kernel = &mut lowering.kernel;
    kernel.shared = kernel.shared.next_multiple_of(16);
    if kernel.shared > STATIC_SHARED {
        return Err(format!("{name}: {} bytes of static shared memory, at most {STATIC_SHARED}", kernel.shared));
    }
    Ok(lowering.kernel)
}

impl Instruction {
    fn new(op: Op, guard: u32) -> Self {
        let space = Space::Generic;
        Self { op, space, width: 4, count: 1, flags: 0, guard, d: 0, a: 0, b: 0, c: 0, x: 0 }
    }
}

fn class_of(name: &str) -> Class {
    match name {
        ".pred" => Class::P,
        ".b64" | ".u64" | ".s64" | ".f64" => Class::D,
        _ => Class::R,
    }
}

impl<'a> Lowering<'a> {
    /// Creates a window for a shared variable; returns its first address.
    fn window(&mut self, align: u32, bytes: u32) -> u32 {
        let kernel = &mut self.kernel;
        let base = kernel.shared.next_multiple_of(align.max(1));
        kernel.windows.push((base, bytes));
        kernel.shared = base + bytes;
        (kernel.windows.len() as u32 + 1) << WINDOW_BITS
    }

    pub(super) fn fresh(&mut self, class: Class, count: u32) -> u32 {
        let next = &mut self.kernel.registers[class as usize];
        *next += count;
        *next - count
    }

    pub(super) fn symbol(&self, name: &str) -> Option<Symbol> {
        for scope in self.scopes.iter().rev() {
            if let Some(symbol) = scope.names.get(name) {
                return Some(*symbol);
            }
            let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
            if prefix.len() < name.len() {
                for &(known, class, base, count) in &scope.ranges {
                    if known == prefix {
                        let index = name[prefix.len()..].parse::<u32>().ok()?;
                        return (index < count).then_some(Symbol::Register(class, base + index));
                    }
                }
            }
        }
        None
    }

    pub(super) fn constant32(&mut self, value: u32) -> u32 {
        let list = &mut self.kernel.constants32;
        CONSTANT
            | *self.index32.entry(value).or_insert_with(|| {
                list.push(value);
                list.len() as u32 - 1
            })
    }

    pub(super) fn constant64(&mut self, value: u64) -> u32 {
        let list = &mut self.kernel.constants64;
        CONSTANT
            | *self.index64.entry(value).or_insert_with(|| {
                list.push(value);
                list.len() as u32 - 1
            })
    }

    /// A predicate that an instruction before the current one sets.
    fn constant_predicate(&mut self, value: bool) -> u32 {
        let predicate = self.fresh(Class::P, 1);
        let place = self.kernel.places.last().copied().unwrap_or_default();
        let set = Instruction { d: predicate, x: value.into(), ..Instruction::new(Op::SetPredicate, 0) };
        self.kernel.code.push(set);
        self.kernel.places.push(place);
        predicate
    }

    pub(super) fn number(word: &str, negative: bool) -> Option<u64> {
        let value = if let Some(hex) = word.strip_prefix("0f").or(word.strip_prefix("0F")) {
            u32::from_str_radix(hex, 16).ok()? as u64
        } else if let Some(hex) = word.strip_prefix("0d").or(word.strip_prefix("0D")) {
            u64::from_str_radix(hex, 16).ok()?
        } else if let Some(hex) = word.strip_prefix("0x") {
            u64::from_str_radix(hex.trim_end_matches('U'), 16).ok()?
        } else {
            word.trim_end_matches('U').parse().ok()?
        };
        Some(if negative { value.wrapping_neg() } else { value })
    }

    pub(super) fn source(&mut self, operand: &Operand, class: Class) -> Result<u32, String> {
        let Operand::Word(word, negative) = operand else { return Err(format!("{operand:?} is no source")) };
        match self.symbol(word) {
            Some(Symbol::Register(known, index)) if known == class => return Ok(index),
            Some(Symbol::Register(known, _)) => return Err(format!("{word} is {known:?}, not {class:?}")),
            Some(Symbol::Shared(at) | Symbol::Parameter(at)) => {
                return match class {
                    Class::R => Ok(self.constant32(at)),
                    Class::D => Ok(self.constant64(at as u64)),
                    Class::P => Err("an address for a predicate".into()),
                };
            }
            None => {}
        }
        let value = Self::number(word, *negative).ok_or_else(|| format!("unknown operand {word}"))?;
        match class {
            Class::R => Ok(self.constant32(value as u32)),
            Class::D => Ok(self.constant64(value)),
            Class::P => Ok(self.constant_predicate(value != 0)),
        }
    }

    /// A register's class and index; `_` gives a fresh one of the given class.
    pub(super) fn target(&mut self, operand: &Operand, class: Class) -> Result<u32, String> {
        match operand {
            Operand::Word("_", _) => Ok(self.fresh(class, 1)),
            Operand::Word(word, _) => match self.symbol(word) {
                Some(Symbol::Register(known, index)) if known == class => Ok(index),
                _ => Err(format!("{word} is no {class:?} register")),
            },
            _ => Err(format!("{operand:?} is no target")),
        }
    }

    pub(super) fn class(&self, operand: &Operand) -> Option<Class> {
        match operand {
            Operand::Word(word, _) => match self.symbol(word) {
                Some(Symbol::Register(class, _)) => Some(class),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn body(&mut self, function: &'a Function<'a>, inlined: bool) -> Result<(), String> {
        let statements = self.module.statements(function.body.clone())?;
        let mut body = Body { inlined, ..Body::default() };
        let depth = self.scopes.len();
        self.scopes.push(Scope::default());
        for statement in &statements {
            match statement {
                Statement::Open => self.scopes.push(Scope::default()),
                Statement::Close => {
                    self.scopes.pop();
                }
                Statement::Label(label) => {
                    body.labels.insert(label, self.kernel.code.len() as u32);
                }
                Statement::Registers { class, name, count } => {
                    let class = class_of(class);
                    let base = self.fresh(class, count.unwrap_or(1));
                    let scope = self.scopes.last_mut().unwrap();
                    match count {
                        Some(count) => scope.ranges.push((name, class, base, *count)),
                        None => {
                            scope.names.insert(name, Symbol::Register(class, base));
                        }
                    }
                }
                Statement::Variable { space: ".shared", align, bytes, name, .. } => {
                    let at = self.window(*align, bytes.unwrap_or(0));
                    self.scopes.last_mut().unwrap().names.insert(name, Symbol::Shared(at));
                }
                Statement::Variable { space: ".param", name, class, .. } => {
                    let class = class_of(class);
                    let index = self.fresh(class, 1);
                    self.scopes.last_mut().unwrap().names.insert(name, Symbol::Register(class, index));
                }
                Statement::Variable { space, .. } => return Err(format!("{space} variables are not known")),
                Statement::Operation(operation) => {
                    self.line = operation.line;
                    self.operation(operation, &mut body)?;
                }
            }
        }
        let end = self.kernel.code.len() as u32;
        for at in body.returns {
            self.kernel.code[at].x = end;
        }
        for (at, label) in body.branches {
            self.kernel.code[at].x = *body.labels.get(label).ok_or_else(|| format!("no label {label}"))?;
        }
        self.scopes.truncate(depth);
        Ok(())
    }

    pub(super) fn push(&mut self, operation: &Operation, instruction: Instruction) {
        self.kernel.code.push(instruction);
        self.kernel.places.push((operation.line, operation.loc));
    }

    /// The address operand, its offset, and whether the register has 64 bits.
    pub(super) fn address(&mut self, operand: &Operand) -> Result<(u32, i64, bool), String> {
        let Operand::Address(base, offset) = operand else { return Err(format!("{operand:?} is no address")) };
        match self.symbol(base) {
            Some(Symbol::Register(Class::D, index)) => Ok((index, *offset, true)),
            Some(Symbol::Register(Class::R, index)) => Ok((index, *offset, false)),
            Some(Symbol::Shared(at) | Symbol::Parameter(at)) => {
                Ok((self.constant64((at as i64 + offset) as u64), 0, true))
            }
            _ => Err(format!("unknown address {base}")),
        }
    }
}
