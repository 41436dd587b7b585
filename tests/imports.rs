//! Imports point one way: between the rooms of `src` as drawn in `docs/architecture.md`, and without cycles between the files
//! of each folder. Test modules may import anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The rooms; each may import those that come after it.
const ROOMS: [&str; 21] = [
    "cli",
    "compare",
    "train",
    "bench",
    "report",
    "network",
    "backend",
    "data",
    "tensors",
    "files",
    "slope_means",
    "metrics",
    "autotune",
    "histogram",
    "neuron",
    "surrogate",
    "random",
    "kernels",
    "terminal",
    "host",
    "error",
];

type Module = Vec<String>;

/// Every module of the library with its text.
fn modules(folder: &Path, above: &Module, found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_stem().expect("a name").to_str().expect("text").to_string();
        let module = [above.clone(), vec![name.clone()]].concat();
        if entry.is_dir() {
            modules(&entry, &module, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") && name != "main" && name != "lib" {
            let text = fs::read_to_string(&entry).expect("text");
            let code = text.split("#[cfg(test)]").next().expect("a part");
            let lines = code.lines().map(|line| line.split("//").next().expect("a part"));
            found.insert(if name == "mod" { above.clone() } else { module }, lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The paths in a `use` tree, without the `use`: `a::{b, c::d}` has two.
fn paths(tree: &str, above: &[String], found: &mut Vec<Module>) {
    let (mut depth, mut begin) = (0, 0);
    for (i, byte) in tree.bytes().chain([b',']).enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                let (names, rest) = tree[begin..i].split_once('{').unwrap_or((&tree[begin..i], ""));
                let names = names.split(" as ").next().expect("a part").split("::").map(str::trim);
                let names = names.filter(|name| !name.is_empty()).map(String::from);
                let path = above.iter().cloned().chain(names).collect::<Module>();
                match rest.rsplit_once('}') {
                    Some((inside, _)) => paths(inside, &path, found),
                    None => found.push(path),
                }
                begin = i + 1;
            }
            _ => {}
        }
    }
}

/// Which modules each module imports or names by path.
fn imports() -> BTreeMap<Module, BTreeSet<Module>> {
    let mut texts = BTreeMap::new();
    modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &Vec::new(), &mut texts);
    let mut all = BTreeMap::new();
    for (module, text) in &texts {
        let mut named = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let code = line.trim_start().trim_start_matches("pub(super) ").trim_start_matches("pub(crate) ");
            if let Some(first) = code.trim_start_matches("pub ").strip_prefix("use ") {
                let rest = text.lines().skip(i + 1).fold(first.to_string(), |tree, line| tree + line);
                paths(rest.split(';').next().expect("a part"), &[], &mut named);
            }
        }
        for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            if word.starts_with("crate::") || word.starts_with("super::") {
                paths(word, &[], &mut named);
            }
        }
        let mut imported = BTreeSet::new();
        for path in named {
            let ups = path.iter().take_while(|name| *name == "super").count();
            let mut target: Module = match path[0].as_str() {
                "crate" => path[1..].to_vec(),
                "super" if ups <= module.len() => [&module[..module.len() - ups], &path[ups..]].concat(),
                _ => [&module[..], &path[..]].concat(),
            };
            while !target.is_empty() && !texts.contains_key(&target) {
                target.pop();
            }
            if !target.is_empty() && target != *module {
                imported.insert(target);
            }
        }
        all.insert(module.clone(), imported);
    }
    all
}

#[test]
fn rooms_import_those_below() {
    let mut checked = 0;
    let place = |room: &str| ROOMS.iter().position(|known| *known == room).unwrap_or_else(|| panic!("{room} is new"));
    for (module, imported) in imports() {
        for target in imported.iter().filter(|target| target[0] != module[0]) {
            assert!(place(&module[0]) < place(&target[0]), "{} imports {}", module.join("::"), target.join("::"));
            checked += 1;
        }
    }
    assert!(checked > 300, "{checked} imports between rooms");
}

#[test]
fn no_folder_has_a_circle() {
    let all = imports();
    let folders: BTreeSet<&[String]> = all.keys().map(|module| &module[..module.len() - 1]).collect();
    let mut edges = 0;
    for folder in folders {
        let depth = folder.len() + 1;
        let inside = |module: &Module| module.len() >= depth && module.starts_with(folder);
        let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (module, imported) in all.iter().filter(|(module, _)| inside(module)) {
            let names = imported.iter().filter(|target| inside(target)).map(|target| target[depth - 1].as_str());
            graph.entry(&module[depth - 1]).or_default().extend(names.filter(|name| *name != module[depth - 1]));
        }
        edges += graph.values().map(BTreeSet::len).sum::<usize>();
        // Repeatedly removes what imports nothing that is left.
        while let Some(leaf) =
            graph.iter().find(|(_, targets)| targets.iter().all(|target| !graph.contains_key(target)))
        {
            let leaf = *leaf.0;
            graph.remove(leaf);
        }
        assert!(graph.is_empty(), "a circle in {}: {graph:?}", folder.join("::"));
    }
    assert!(edges > 300, "{edges} imports within folders");
}
