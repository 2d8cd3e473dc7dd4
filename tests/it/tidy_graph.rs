//! Prints which file of `src` imports which, and holds the API's files free of circles.
//!
//! `cargo test --release --test it -- the_import_graph --nocapture` prints the numbers of files,
//! folders, arrows between them, and every circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path below the crate: `api`, `http`, `auth`.
type Module = Vec<String>;

/// Arrows from the importer to the imported.
type Arrows<N> = BTreeSet<(N, N)>;

/// The files of a crate and their imports, without tests.
struct Graph {
    /// Each module's file, relative to `src`.
    files: BTreeMap<Module, PathBuf>,
    arrows: Arrows<Module>,
}

impl Graph {
    fn read(src: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![src.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("the folder can be read") {
                let path = entry.expect("the folder can be read").path();
                let name = path.file_name().expect("a file has a name");
                if path.is_dir() {
                    // A folder of tests.
                    if name != "tests" {
                        folders.push(path);
                    }
                } else if name != "tests.rs" && path.extension().is_some_and(|end| end == "rs") {
                    let inside = path.strip_prefix(src).expect("the walk began there");
                    files.insert(module_of(inside), inside.to_owned());
                }
            }
        }
        let mut arrows = Arrows::new();
        for (module, file) in &files {
            let source = fs::read_to_string(src.join(file)).expect("sources are UTF-8");
            for path in paths_in(&code(&source)) {
                let target = resolve(&path, module, &files);
                // The crate's root only declares the others.
                let target = target.filter(|target| target != module && !target.is_empty());
                arrows.extend(target.map(|target| (module.clone(), target)));
            }
        }
        Self { files, arrows }
    }

    /// The folder of a module: `a/mod.rs` and `a.rs` beside `a/` are in `a`, as is `a/b.rs`. A file
    /// of `src` itself is a room of its own.
    fn folder(&self, module: &Module) -> String {
        let is_inside = |other: &Module| other.len() > module.len() && other.starts_with(module);
        let is_folder = module.len() < 2 || self.files.keys().any(is_inside);
        let len = module.len() - usize::from(!is_folder);
        module[..len].join("/")
    }

    /// Arrows between folders.
    fn folder_arrows(&self) -> Arrows<String> {
        let ends = self.arrows.iter();
        ends.map(|(from, to)| (self.folder(from), self.folder(to)))
            .filter(|(from, to)| from != to)
            .collect()
    }

    /// The part of the graph below one module.
    fn below(&self, room: &str) -> Self {
        let inside = |module: &Module| module.first().is_some_and(|first| first == room);
        let files = self.files.iter().filter(|(module, _)| inside(module));
        let arrows = self.arrows.iter();
        let arrows = arrows.filter(|(from, to)| inside(from) && inside(to));
        Self {
            files: files
                .map(|(module, file)| (module.clone(), file.clone()))
                .collect(),
            arrows: arrows.cloned().collect(),
        }
    }

    /// Describes the graph: its numbers and its circles.
    fn describe(&self, name: &str) -> String {
        let folders: BTreeSet<_> = self
            .files
            .keys()
            .map(|module| self.folder(module))
            .collect();
        let between = self.folder_arrows();
        let mut text = format!(
            "{name}: {} files, {} arrows; {} folders, {} arrows\n",
            self.files.len(),
            self.arrows.len(),
            folders.len(),
            between.len(),
        );
        for circle in circles(&self.arrows) {
            let names: Vec<_> = circle.iter().map(|module| module.join("::")).collect();
            text += &format!("  circle of {} files: {}\n", names.len(), names.join(" "));
        }
        for circle in circles(&between) {
            let names: Vec<_> = circle.iter().map(String::as_str).collect();
            text += &format!("  circle of {} folders: {}\n", names.len(), names.join(" "));
        }
        text
    }
}

fn module_of(file: &Path) -> Module {
    let stem = file.with_extension("");
    let parts = stem.iter().map(|part| part.to_string_lossy().into_owned());
    let mut module: Module = parts.collect();
    let last = module.last().map(String::as_str);
    if last == Some("mod") || module == ["lib"] {
        module.pop();
    }
    module
}

/// A file's code without its tests, comments and the texts of strings.
fn code(source: &str) -> String {
    let end = source
        .find("#[cfg(test)]\nmod tests")
        .unwrap_or(source.len());
    let mut code = String::with_capacity(end);
    for line in source[..end].lines() {
        let mut pieces = line.split("//").next().unwrap_or_default().split('"');
        while let Some(piece) = pieces.next() {
            code.push_str(piece);
            // Between two quotes.
            pieces.next();
        }
        code.push('\n');
    }
    code
}

/// Paths that are imported or written out.
fn paths_in(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    let mut import: Option<String> = None;
    for line in code.lines() {
        if let Some(begun) = &mut import {
            begun.push_str(line);
        } else if let Some((visibility, imported)) = line.trim_start().split_once("use ")
            && (visibility.is_empty() || visibility.starts_with("pub"))
        {
            import = Some(imported.to_owned());
        } else {
            rest.push_str(line);
            rest.push('\n');
        }
        if let Some(whole) = import.take_if(|begun| begun.contains(';')) {
            let tree = whole.split(';').next().unwrap_or_default();
            paths.extend(expanded(tree));
        }
    }
    let is_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for path in rest.split(|c| !is_of_path(c)) {
        if ["crate::", "super::", "self::", "medgemma::"]
            .iter()
            .any(|root| path.starts_with(root))
        {
            paths.extend(expanded(path));
        }
    }
    paths
}

/// The paths of an import: `a::{b, c::d}` is two.
fn expanded(tree: &str) -> Vec<Vec<String>> {
    let segments = |path: &str| {
        let path = path.split(" as ").next().unwrap_or_default();
        let segments = path
            .split("::")
            .map(str::trim)
            .filter(|segment| !segment.is_empty());
        segments.map(str::to_owned).collect::<Vec<_>>()
    };
    let Some((head, group)) = tree.split_once('{') else {
        return vec![segments(tree)];
    };
    let group = group.rsplit_once('}').map_or(group, |(group, _)| group);
    let mut branches = vec![String::new()];
    let mut depth = 0;
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 {
            branches.push(String::new());
        } else if let Some(branch) = branches.last_mut() {
            branch.push(c);
        }
    }
    let branches = branches.iter().filter(|branch| !branch.trim().is_empty());
    let paths = branches.flat_map(|branch| expanded(branch));
    paths.map(|path| [segments(head), path].concat()).collect()
}

/// The module whose file has what `path` names in the file of `module`.
fn resolve(path: &[String], module: &Module, files: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let first = path.first()?.as_str();
    let mut absolute = match first {
        "crate" | "medgemma" => path[1..].to_vec(),
        "self" => [module.as_slice(), &path[1..]].concat(),
        "super" => {
            let ups = path
                .iter()
                .take_while(|segment| *segment == "super")
                .count();
            let base = &module[..module.len().checked_sub(ups)?];
            [base, &path[ups..]].concat()
        }
        child => {
            let inside = [module.as_slice(), &[child.to_owned()]].concat();
            files
                .contains_key(&inside)
                .then(|| [module.as_slice(), path].concat())?
        }
    };
    // What is left names something in the file.
    while !files.contains_key(&absolute) {
        absolute.pop()?;
    }
    Some(absolute)
}

/// The groups of nodes that all reach each other, of at least two.
fn circles<N: Ord + Clone>(arrows: &Arrows<N>) -> Vec<BTreeSet<N>> {
    let nodes: BTreeSet<&N> = arrows.iter().flat_map(|(from, to)| [from, to]).collect();
    let reached = |start: &N| {
        let mut reached = BTreeSet::new();
        let mut open = vec![start.clone()];
        while let Some(node) = open.pop() {
            let next = arrows.iter().filter(|(from, _)| *from == node);
            for (_, to) in next {
                if reached.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        reached
    };
    let reach: BTreeMap<&N, BTreeSet<N>> =
        nodes.iter().map(|node| (*node, reached(node))).collect();
    let mut circles: Vec<BTreeSet<N>> = Vec::new();
    for (node, reached) in &reach {
        let circle = reached.iter().filter(|other| reach[*other].contains(*node));
        let circle: BTreeSet<N> = circle.cloned().collect();
        if circle.len() > 1 && !circles.contains(&circle) {
            circles.push(circle);
        }
    }
    circles
}

/// The graph of this source, or of the one that `MEDGEMMA_SRC` names, such as an older one.
fn source_graph() -> Graph {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let src = std::env::var_os("MEDGEMMA_SRC").map_or(own, PathBuf::from);
    Graph::read(&src)
}

#[test]
fn the_import_graph_of_the_api_has_no_circle() {
    let graph = source_graph();
    println!("{}", graph.describe("src"));
    let api = graph.below("api");
    println!("{}", api.describe("api"));
    assert!(
        api.files.len() > 50,
        "the walk found {} files",
        api.files.len()
    );
    assert!(
        api.arrows.len() > 200,
        "only {} imports were seen",
        api.arrows.len()
    );
    let circles = circles(&api.arrows);
    assert!(circles.is_empty(), "files import each other: {circles:?}");
}

#[test]
fn the_graph_itself_sees_imports_and_circles() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
    };
    write("lib.rs", "mod a;\nmod b;");
    write(
        "a/mod.rs",
        "mod x;\nuse x::X;\nuse crate::{b::{\n    B, // crate::a::y\n}};",
    );
    write(
        "a/x.rs",
        "struct X(super::y::Y);\nconst S: &str = \"crate::b\";",
    );
    write(
        "a/y.rs",
        "use super::x;\n\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}",
    );
    write("b.rs", "pub(crate) struct B;");
    let graph = Graph::read(folder.path());
    let arrows: Vec<_> = graph
        .arrows
        .iter()
        .map(|(from, to)| format!("{} {}", from.join("::"), to.join("::")))
        .collect();
    assert_eq!(arrows, ["a a::x", "a b", "a::x a::y", "a::y a::x"]);
    let described = graph.describe("all");
    assert!(
        described.contains("5 files, 4 arrows; 3 folders, 1 arrows"),
        "{described}"
    );
    assert!(
        described.contains("circle of 2 files: a::x a::y"),
        "{described}"
    );
}
