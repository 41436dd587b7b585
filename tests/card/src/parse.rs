//! PTX text to statements: names remain text, and scopes remain braces.

use std::collections::HashMap;

#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub text: &'a str,
    pub line: u32,
    /// File and line of the last `.loc`.
    pub loc: (u16, u32),
}

#[derive(Clone, Debug)]
pub enum Operand<'a> {
    /// A register, symbol, label or number, with its sign.
    Word(&'a str, bool),
    Address(&'a str, i64),
    Vector(Vec<Operand<'a>>),
    Pair(&'a str, &'a str),
}

#[derive(Clone, Debug)]
pub enum Statement<'a> {
    Registers {
        class: &'a str,
        name: &'a str,
        count: Option<u32>,
    },
    /// A `.shared` or `.param` variable; without a size it is an extern array.
    Variable {
        space: &'a str,
        align: u32,
        bytes: Option<u32>,
        name: &'a str,
        class: &'a str,
    },
    Label(&'a str),
    Open,
    Close,
    Operation(Operation<'a>),
}

#[derive(Clone, Debug)]
pub struct Operation<'a> {
    pub guard: Option<(&'a str, bool)>,
    pub name: &'a str,
    pub operands: Vec<Operand<'a>>,
    pub line: u32,
    pub loc: (u16, u32),
}

/// A kernel or function: its parameters and the position of its body among the module's tokens.
#[derive(Clone, Debug)]
pub struct Function<'a> {
    pub name: &'a str,
    pub entry: bool,
    /// Name, alignment, bytes.
    pub results: Vec<(&'a str, u32, u32)>,
    pub parameters: Vec<(&'a str, u32, u32)>,
    pub body: std::ops::Range<usize>,
    pub max_threads: u32,
}

pub struct Module<'a> {
    pub tokens: Vec<Token<'a>>,
    pub functions: HashMap<&'a str, Function<'a>>,
    /// Extern shared arrays of the module.
    pub dynamic: Vec<&'a str>,
    /// Other shared variables of the module, with alignment and bytes.
    pub shared: Vec<(&'a str, u32, u32)>,
    pub files: HashMap<u16, &'a str>,
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

fn tokenize<'a>(text: &'a str, files: &mut HashMap<u16, &'a str>) -> Vec<Token<'a>> {
    let mut tokens = Vec::with_capacity(text.len() / 5);
    let mut loc = (0, 0);
    let mut skipping = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.split("//").next().unwrap_or("").trim();
        if skipping {
            skipping = !line.starts_with('}');
            continue;
        }
        if let Some(rest) = line.strip_prefix(".loc") {
            let mut words = rest.split_whitespace().map(|word| word.trim_end_matches(',').parse::<u32>().unwrap_or(0));
            loc = (words.next().unwrap_or(0) as u16, words.next().unwrap_or(0));
            continue;
        }
        if let Some(rest) = line.strip_prefix(".file") {
            let (number, name) = rest.trim().split_once(char::is_whitespace).unwrap_or(("0", ""));
            files.insert(number.parse().unwrap_or(0), name.trim_matches('"'));
            continue;
        }
        if line.starts_with(".section") {
            skipping = true;
            continue;
        }
        if line.starts_with(".pragma") {
            continue;
        }
        let bytes = line.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            if bytes[at].is_ascii_whitespace() {
                at += 1;
                continue;
            }
            let start = at;
            if is_word(bytes[at]) {
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
            } else {
                at += 1;
            }
            tokens.push(Token { text: &line[start..at], line: number as u32 + 1, loc });
        }
    }
    tokens
}

pub fn bytes_of(class: &str) -> u32 {
    match class.trim_start_matches('.') {
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" => 2,
        "b32" | "u32" | "s32" | "f32" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        _ => 0,
    }
}

impl<'a> Module<'a> {
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let mut files = HashMap::new();
        let tokens = tokenize(text, &mut files);
        let mut module = Module { tokens, functions: HashMap::new(), dynamic: Vec::new(), shared: Vec::new(), files };
        let mut at = 0;
        while at < module.tokens.len() {
            at = module.top(at)?;
        }
        Ok(module)
    }

    fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    fn top(&mut self, mut at: usize) -> Result<usize, String> {
        match self.text(at) {
            ".version" | ".target" | ".address_size" => Ok(at + 2),
            ".visible" | ".weak" => Ok(at + 1),
            ".extern" if self.text(at + 1) == ".shared" => {
                while self.text(at) != "[" {
                    at += 1;
                }
                self.dynamic.push(self.text(at - 1));
                Ok(at + 3)
            }
            ".shared" => {
                let (list, end) = self.parameters(at + 1);
                self.shared.extend(list);
                Ok(end)
            }
            ".entry" | ".func" => self.function(at),
            other => Err(format!("line {}: `{other}` at the top of a module", self.tokens[at].line)),
        }
    }

    /// Declarations up to `)` or `;`.
    fn parameters(&self, mut at: usize) -> (Vec<(&'a str, u32, u32)>, usize) {
        let mut list = Vec::new();
        let (mut align, mut element, mut name, mut count) = (0, 0, "", 1);
        loop {
            match self.text(at) {
                ".param" => {}
                ".align" => {
                    at += 1;
                    align = self.text(at).parse().unwrap_or(8);
                }
                "[" => {
                    count = self.text(at + 1).parse().unwrap_or(1);
                    at += 2;
                }
                end @ ("," | ")" | ";") => {
                    if !name.is_empty() {
                        list.push((name, if align > 0 { align } else { element }, element * count));
                    }
                    (align, element, name, count) = (0, 0, "", 1);
                    if end != "," {
                        return (list, at + 1);
                    }
                }
                "" => return (list, at),
                class if class.starts_with('.') => element = bytes_of(class),
                word => name = word,
            }
            at += 1;
        }
    }

    fn function(&mut self, mut at: usize) -> Result<usize, String> {
        let entry = self.text(at) == ".entry";
        at += 1;
        let (mut results, mut parameters) = (Vec::new(), Vec::new());
        if self.text(at) == "(" {
            (results, at) = self.parameters(at + 1);
        }
        let name = self.text(at);
        at += 1;
        if self.text(at) == "(" {
            (parameters, at) = self.parameters(at + 1);
        }
        let mut max_threads = 1024;
        while self.text(at) != "{" {
            match self.text(at) {
                ";" => return Ok(at + 1),
                ".maxntid" | ".reqntid" => {
                    let mut product = 1;
                    for i in [1, 3, 5] {
                        product *= self.text(at + i).parse::<u32>().unwrap_or(1);
                    }
                    max_threads = product;
                    at += 5;
                }
                "" => return Err("a function without a body at the end".into()),
                _ => {}
            }
            at += 1;
        }
        let start = at + 1;
        let mut depth = 0;
        loop {
            match self.text(at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                "" => return Err(format!("{name} does not end")),
                _ => {}
            }
            at += 1;
            if depth == 0 {
                break;
            }
        }
        let body = start..at - 1;
        self.functions.insert(name, Function { name, entry, results, parameters, body, max_threads });
        Ok(at)
    }

    fn operand(&self, at: &mut usize) -> Result<Operand<'a>, String> {
        let word = self.text(*at);
        *at += 1;
        match word {
            "{" => {
                let mut list = Vec::new();
                while self.text(*at) != "}" {
                    if self.text(*at) == "," {
                        *at += 1;
                    } else {
                        list.push(self.operand(at)?);
                    }
                }
                *at += 1;
                Ok(Operand::Vector(list))
            }
            "[" => {
                let base = self.text(*at);
                *at += 1;
                let mut sign = 1;
                let mut offset = 0;
                while self.text(*at) != "]" {
                    match self.text(*at) {
                        "+" => {}
                        "-" => sign = -1,
                        number => offset = number.parse::<i64>().map_err(|e| format!("{number}: {e}"))?,
                    }
                    *at += 1;
                }
                *at += 1;
                Ok(Operand::Address(base, sign * offset))
            }
            "-" => {
                *at += 1;
                Ok(Operand::Word(self.text(*at - 1), true))
            }
            _ if self.text(*at) == "|" => {
                *at += 2;
                Ok(Operand::Pair(word, self.text(*at - 1)))
            }
            _ => Ok(Operand::Word(word, false)),
        }
    }

    /// The statements of a body.
    pub fn statements(&self, body: std::ops::Range<usize>) -> Result<Vec<Statement<'a>>, String> {
        let mut list = Vec::with_capacity(body.len() / 8);
        let mut at = body.start;
        while at < body.end {
            let first = self.tokens[at];
            match first.text {
                "{" => {
                    list.push(Statement::Open);
                    at += 1;
                }
                "}" => {
                    list.push(Statement::Close);
                    at += 1;
                }
                ";" => at += 1,
                ".reg" => {
                    let class = self.text(at + 1);
                    at += 1;
                    while self.text(at) != ";" {
                        let name = self.text(at + 1);
                        let count = if self.text(at + 2) == "<" { self.text(at + 3).parse().ok() } else { None };
                        list.push(Statement::Registers { class, name, count });
                        at += 2;
                        while !matches!(self.text(at), "," | ";") {
                            at += 1;
                        }
                    }
                    at += 1;
                }
                space @ (".shared" | ".param" | ".local") => {
                    let (mut align, mut class, mut name, mut count) = (0, "", "", 1);
                    at += 1;
                    while self.text(at) != ";" {
                        match self.text(at) {
                            ".align" => {
                                at += 1;
                                align = self.text(at).parse().unwrap_or(16);
                            }
                            "[" => {
                                count = self.text(at + 1).parse().unwrap_or(1);
                                at += 2;
                            }
                            word if word.starts_with('.') => class = word,
                            word => name = word,
                        }
                        at += 1;
                    }
                    at += 1;
                    let bytes = bytes_of(class) * count;
                    list.push(Statement::Variable {
                        space,
                        align: align.max(bytes_of(class)),
                        bytes: Some(bytes),
                        name,
                        class,
                    });
                }
                label if self.text(at + 1) == ":" => {
                    list.push(Statement::Label(label));
                    at += 2;
                }
                _ => {
                    let mut guard = None;
                    if first.text == "@" {
                        at += 1;
                        let negated = self.text(at) == "!";
                        at += negated as usize;
                        guard = Some((self.text(at), negated));
                        at += 1;
                    }
                    let name = self.text(at);
                    at += 1;
                    let mut operands = Vec::new();
                    while self.text(at) != ";" {
                        match self.text(at) {
                            "," => at += 1,
                            "(" => {
                                let mut inner = Vec::new();
                                at += 1;
                                while self.text(at) != ")" {
                                    if self.text(at) == "," {
                                        at += 1;
                                    } else {
                                        inner.push(self.operand(&mut at)?);
                                    }
                                }
                                at += 1;
                                operands.push(Operand::Vector(inner));
                            }
                            "" => return Err(format!("line {}: no end", first.line)),
                            _ => operands.push(self.operand(&mut at)?),
                        }
                    }
                    at += 1;
                    let (line, loc) = (first.line, first.loc);
                    list.push(Statement::Operation(Operation { guard, name, operands, line, loc }));
                }
            }
        }
        Ok(list)
    }
}
