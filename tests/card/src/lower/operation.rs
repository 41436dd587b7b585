//! Every instruction except loads, stores and calls.

use super::*;
use crate::parse::bytes_of;

impl<'a> Lowering<'a> {
    pub(super) fn operation(&mut self, operation: &Operation<'a>, body: &mut Body<'a>) -> Result<(), String> {
        let Operation { name, operands, .. } = operation;
        let guard = match operation.guard {
            None => 0,
            Some((predicate, negated)) => {
                1 + 2 * self.source(&Operand::Word(predicate, false), Class::P)? + negated as u32
            }
        };
        let mut i = Instruction::new(Op::Return, guard);
        let parts: Vec<&str> = name.split('.').collect();
        let wanted = |count: usize| {
            if operands.len() == count { Ok(()) } else { Err(format!("{name} with {} operands", operands.len())) }
        };
        match parts[0] {
            "bra" => {
                let Operand::Word(label, _) = operands[0] else { return Err("no label".into()) };
                i.op = Op::Branch;
                body.branches.push((self.kernel.code.len(), label));
            }
            "ret" | "exit" if body.inlined => {
                i.op = Op::Branch;
                body.returns.push(self.kernel.code.len());
            }
            "ret" | "exit" => i.op = Op::Return,
            "call" => return self.call(operation),
            "mov" => match (&operands[0], &operands[1]) {
                (Operand::Vector(parts), source) => {
                    i.op = Op::Unpack;
                    i.width = bytes_of(name.rsplit('.').next().unwrap()) as u8;
                    i.a = self.source(source, if i.width == 8 { Class::D } else { Class::R })?;
                    i.d = self.target(&parts[0], Class::R)?;
                    i.b = self.target(&parts[1], Class::R)?;
                }
                (target, Operand::Vector(parts)) => {
                    i.op = Op::Pack;
                    i.width = bytes_of(name.rsplit('.').next().unwrap()) as u8;
                    i.d = self.target(target, if i.width == 8 { Class::D } else { Class::R })?;
                    i.a = self.source(&parts[0], Class::R)?;
                    i.b = self.source(&parts[1], Class::R)?;
                }
                (target, Operand::Word(word, _)) if parts[1] == "pred" => {
                    i.op = Op::SetPredicate;
                    i.d = self.target(target, Class::P)?;
                    match Self::number(word, false) {
                        Some(value) => i.x = (value != 0) as u32,
                        None => {
                            i.a = self.source(&operands[1], Class::P)?;
                            i.x = 2;
                        }
                    }
                }
                (target, Operand::Word(word, _)) if special(word).is_some() => {
                    i.op = Op::Special;
                    i.d = self.target(target, Class::R)?;
                    i.x = special(word).unwrap();
                }
                _ => return self.lanes(operation, i),
            },
            "ld" | "st" => return self.memory(operation, i, parts[0] == "ld"),
            "atom" | "red" => {
                let wide = bytes_of(parts.last().unwrap()) == 8;
                let class = if wide { Class::D } else { Class::R };
                let spaces = [("global", Space::Global), ("shared", Space::Shared)];
                i.space =
                    spaces.iter().find(|(name, _)| parts.contains(name)).map_or(Space::Generic, |(_, space)| *space);
                i.width = if wide { 8 } else { 4 };
                let first = if parts[0] == "atom" {
                    i.d = self.target(&operands[0], class)?;
                    1
                } else {
                    i.d = self.fresh(class, 1);
                    0
                };
                let (address, offset, wide_address) = self.address(&operands[first])?;
                (i.a, i.x) = (address, offset as i32 as u32);
                i.flags = wide as u8 * WIDE | wide_address as u8 * WIDE_ADDRESS;
                i.b = self.source(&operands[first + 1], class)?;
                if parts.contains(&"add") && parts.last().unwrap().starts_with('u') {
                    i.op = Op::AtomicAdd;
                } else if parts.contains(&"cas") {
                    i.op = Op::AtomicCas;
                    i.c = self.source(&operands[first + 2], class)?;
                } else {
                    return Err(format!("unknown instruction {name}"));
                }
            }
            "shfl" => {
                wanted(5)?;
                i.op = Op::Shuffle;
                i.count = match parts[2] {
                    "up" => 0,
                    "down" => 1,
                    "bfly" => 2,
                    "idx" => 3,
                    _ => return Err(format!("unknown instruction {name}")),
                };
                let predicate;
                (i.d, predicate) = match &operands[0] {
                    Operand::Pair(target, predicate) => (
                        self.target(&Operand::Word(target, false), Class::R)?,
                        self.target(&Operand::Word(predicate, false), Class::P)?,
                    ),
                    target => (self.target(target, Class::R)?, self.fresh(Class::P, 1)),
                };
                i.a = self.source(&operands[1], Class::R)?;
                i.b = self.source(&operands[2], Class::R)?;
                i.c = self.source(&operands[3], Class::R)?;
                let mask = self.source(&operands[4], Class::R)?;
                i.x = self.list(&[predicate, mask]);
            }
            "vote" if parts[2] == "ballot" => {
                wanted(3)?;
                i.op = Op::Ballot;
                i.d = self.target(&operands[0], Class::R)?;
                i.a = self.source(&operands[1], Class::P)?;
                i.b = self.source(&operands[2], Class::R)?;
            }
            "match" if parts[1] == "any" && parts[3] == "b32" => {
                wanted(3)?;
                i.op = Op::Match;
                i.d = self.target(&operands[0], Class::R)?;
                i.a = self.source(&operands[1], Class::R)?;
                i.b = self.source(&operands[2], Class::R)?;
            }
            "bar" | "barrier" if parts.contains(&"sync") => {
                wanted(1)?;
                i.op = if parts.contains(&"warp") { Op::WarpBarrier } else { Op::Barrier };
                i.a = self.source(&operands[0], Class::R)?;
            }
            "cp" => match parts[2] {
                "commit_group" => i.op = Op::Commit,
                "wait_group" | "wait_all" => {
                    i.op = Op::WaitGroup;
                    if let Some(Operand::Word(word, _)) = operands.first() {
                        i.x = Self::number(word, false).ok_or("not a number")? as u32;
                    }
                }
                "ca" | "cg" => {
                    i.op = Op::CopyAsync;
                    let (target, target_offset, wide) = self.address(&operands[0])?;
                    let (source, source_offset, _) = self.address(&operands[1])?;
                    (i.a, i.b) = (target, source);
                    i.flags = wide as u8 * WIDE_ADDRESS;
                    let Operand::Word(word, _) = operands[2] else { return Err("no size".into()) };
                    i.count = Self::number(word, false).ok_or("not a size")? as u8;
                    i.c = match operands.get(3) {
                        Some(size) => self.source(size, Class::R)?,
                        None => self.constant32(i.count as u32),
                    };
                    i.x = self.list(&[target_offset as i32 as u32, source_offset as i32 as u32]);
                }
                _ => return Err(format!("unknown instruction {name}")),
            },
            "ldmatrix" if parts.contains(&"x4") => {
                i.op = Op::LoadMatrix;
                let Operand::Vector(targets) = &operands[0] else { return Err("no registers".into()) };
                let mut list = Vec::new();
                for target in targets {
                    list.push(self.target(target, Class::R)?);
                }
                let (address, offset, wide) = self.address(&operands[1])?;
                list.push(offset as i32 as u32);
                i.a = address;
                i.flags = wide as u8 * WIDE_ADDRESS | parts.contains(&"trans") as u8 * TRANSPOSED;
                i.x = self.list(&list);
            }
            "mma" => {
                let known = ["f32.bf16.bf16.f32", "f32.f16.f16.f32"]
                    .iter()
                    .position(|kind| **name == format!("mma.sync.aligned.m16n8k16.row.col.{kind}"));
                let Some(known) = known else { return Err(format!("unknown instruction {name}")) };
                i.op = Op::Multiply;
                i.flags = if known == 0 { BF16 } else { 0 };
                let mut list = Vec::new();
                for (number, operand) in operands.iter().enumerate() {
                    let Operand::Vector(parts) = operand else { return Err("no registers".into()) };
                    for part in parts {
                        list.push(if number == 0 {
                            self.target(part, Class::R)?
                        } else {
                            self.source(part, Class::R)?
                        });
                    }
                }
                if list.len() != 14 {
                    return Err(format!("{} registers", list.len()));
                }
                i.x = self.list(&list);
            }
            _ => return self.lanes(operation, i),
        }
        self.push(operation, i);
        Ok(())
    }

    pub(super) fn list(&mut self, values: &[u32]) -> u32 {
        self.kernel.lists.extend(values);
        (self.kernel.lists.len() - values.len()) as u32
    }

    pub(super) fn lanes(&mut self, operation: &Operation, mut i: Instruction) -> Result<(), String> {
        let Some(&(op, signature)) = OPERATIONS.get(operation.name) else {
            return Err(format!("unknown instruction {}", operation.name));
        };
        i.op = op;
        let classes: Vec<Class> = signature
            .bytes()
            .filter(|&c| c != b'_')
            .map(|c| match c {
                b'p' => Class::P,
                b'r' => Class::R,
                _ => Class::D,
            })
            .collect();
        if classes.len() != operation.operands.len() {
            return Err(format!("{} with {} operands", operation.name, operation.operands.len()));
        }
        i.d = self.target(&operation.operands[0], classes[0])?;
        let mut sources = [0; 4];
        for (at, operand) in operation.operands[1..].iter().enumerate() {
            sources[at] = self.source(operand, classes[at + 1])?;
        }
        [i.a, i.b, i.c, i.x] = sources;
        self.push(operation, i);
        Ok(())
    }
}

fn special(word: &str) -> Option<u32> {
    let names = [
        "%tid.x",
        "%tid.y",
        "%tid.z",
        "%ntid.x",
        "%ntid.y",
        "%ntid.z",
        "%ctaid.x",
        "%ctaid.y",
        "%ctaid.z",
        "%nctaid.x",
        "%nctaid.y",
        "%nctaid.z",
        "%laneid",
        "%warpid",
    ];
    names.iter().position(|name| *name == word).map(|at| at as u32)
}
