//! Loads, stores and calls.

use super::*;
use crate::parse::bytes_of;

impl<'a> Lowering<'a> {
    pub(super) fn memory(&mut self, operation: &Operation, mut i: Instruction, load: bool) -> Result<(), String> {
        let parts: Vec<&str> = operation.name.split('.').collect();
        let (values, address) = if load {
            (&operation.operands[0], &operation.operands[1])
        } else {
            (&operation.operands[1], &operation.operands[0])
        };
        let kind = *parts.last().unwrap();
        i.width = bytes_of(kind) as u8;
        if i.width == 0 {
            return Err(format!("unknown instruction {}", operation.name));
        }
        for part in &parts[1..parts.len() - 1] {
            match *part {
                "global" => i.space = Space::Global,
                "shared" => i.space = Space::Shared,
                "param" => i.space = Space::Parameter,
                "v2" => i.count = 2,
                "v4" => i.count = 4,
                "nc" | "volatile" => {}
                _ => return Err(format!("unknown instruction {}", operation.name)),
            }
        }
        // A parameter of an inlined function is a register.
        if let Operand::Address(base, _) = address
            && let Some(Symbol::Register(class, index)) = self.symbol(base)
            && i.space == Space::Parameter
            && !base.starts_with('%')
        {
            i.op = if class == Class::D { Op::Movb64 } else { Op::Movb32 };
            (i.d, i.a) = if load { (self.target(values, class)?, index) } else { (index, self.source(values, class)?) };
            self.push(operation, i);
            return Ok(());
        }
        let (base, offset, wide_address) = self.address(address)?;
        i.a = base;
        let list: Vec<&Operand> = match values {
            Operand::Vector(list) => list.iter().collect(),
            one => vec![one],
        };
        if list.len() != i.count as usize {
            return Err(format!("{} with {} values", operation.name, list.len()));
        }
        let class =
            list.iter().find_map(|value| self.class(value)).unwrap_or(if i.width == 8 { Class::D } else { Class::R });
        let mut registers = vec![offset as i32 as u32];
        for value in list {
            registers.push(if load { self.target(value, class)? } else { self.source(value, class)? });
        }
        i.flags =
            (class == Class::D) as u8 * WIDE | wide_address as u8 * WIDE_ADDRESS | kind.starts_with('s') as u8 * SIGNED;
        i.x = self.list(&registers);
        i.op = match (load, i.space) {
            (true, Space::Parameter) => Op::LoadParameter,
            (true, _) => Op::Load,
            (false, Space::Parameter) => return Err("a store to a parameter".into()),
            (false, _) => Op::Store,
        };
        self.push(operation, i);
        Ok(())
    }

    pub(super) fn call(&mut self, operation: &Operation<'a>) -> Result<(), String> {
        if operation.guard.is_some() {
            return Err("a call under a predicate".into());
        }
        let words = |operand: &Operand<'a>| match operand {
            Operand::Vector(list) => {
                list.iter().filter_map(|o| if let Operand::Word(w, _) = o { Some(*w) } else { None }).collect()
            }
            _ => Vec::new(),
        };
        let [results, Operand::Word(name, _), arguments] = &operation.operands[..] else {
            return Err("a call of an unknown form".into());
        };
        let function = self.module.functions.get(*name).ok_or_else(|| format!("no function {name}"))?;
        let mut scope = Scope::default();
        for (given, known) in [(words(results), &function.results), (words(arguments), &function.parameters)] {
            if given.len() != known.len() {
                return Err("a call with other parameters".into());
            }
            for (given, (known, ..)) in given.iter().zip(known) {
                let symbol = self.symbol(given).ok_or_else(|| format!("unknown {given}"))?;
                scope.names.insert(known, symbol);
            }
        }
        let outer = std::mem::replace(&mut self.scopes, vec![scope]);
        let result = self.body(function, true);
        self.scopes = outer;
        result
    }
}
