//! `when`: a rule in CEL, the Common Expression Language.
//!
//! A rule is held to bounds before it is ever evaluated, so that no request can make one expensive: its text, its nodes
//! and its depth; loops (`all`, `exists`) do not nest; nothing in the language left over can make a value larger than
//! its parts (no `+`, no `map`); and what may be taken out of claims is counted. So the cost of one evaluation is at
//! most the nodes of the rule times the values of the claims.
//!
//! Whatever is no clear yes refuses: an error, a claim that is not there, a result that is no boolean.

use std::net::IpAddr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{Expr, IdedExpr, LiteralValue};
use cel::common::types::{CelBool, CelString, STRING_TYPE};
use cel::common::value::CowVal;
use cel::{Context, Env, ExecutionError, Program, Value};
use ipnet::IpNet;

use super::rule::Asked;
use super::values::{MOST_VALUES, Variables, is_readable};
use crate::types::{PrincipalFacts, Reason, Rejection};

/// Bytes of a rule. What needs more is a program, and belongs into the backend.
const MOST_SOURCE: usize = 1_024;
/// Nodes of its syntax tree, macros written out.
const MOST_NODES: usize = 128;
/// Depth of that tree, and of brackets before it is known.
const MOST_DEPTH: usize = 24;
/// Loops.
const MOST_LOOPS: usize = 4;

/// Functions and operators that a rule may use.
const FUNCTIONS: [&str; 22] = [
    "!_",
    "-_",
    "_&&_",
    "_||_",
    "_?_:_",
    "_==_",
    "_!=_",
    "_<_",
    "_<=_",
    "_>_",
    "_>=_",
    "@in",
    "_[_]",
    "@not_strictly_false",
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "string",
    "int",
    "double",
    WITHIN,
];

/// `client.ip.within("10.0.0.0/8")`.
const WITHIN: &str = "within";

const VARIABLES: [&str; 3] = ["claims", "request", "client"];

/// A rule, compiled.
#[derive(Debug)]
pub struct When {
    program: Program,
    source: Arc<str>,
    /// Whether its verdict on a credential never changes.
    claims_alone: bool,
}

static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut language = Env::stdlib().with_optional_support(false);
    let args = vec![STRING_TYPE];
    language
        .add_member_overload(WITHIN, "string_within_network", STRING_TYPE, args, within)
        .expect("the standard library has no function of this name");
    Arc::new(language)
});

impl When {
    /// Compiles a rule.
    ///
    /// # Errors
    /// What is wrong with it, and in which column.
    pub fn compile(source: &str) -> Result<Self, String> {
        check_text(source)?;
        let program = LANGUAGE.compile(source).map_err(|errors| {
            let first = errors.errors.into_iter().next();
            first.map_or_else(
                || "is no expression".to_owned(),
                |error| format!("{}: {}", place(error.pos), error.msg),
            )
        })?;
        let mut surveyor = Surveyor {
            program: &program,
            nodes: 0,
            loops: 0,
            bound: Vec::new(),
            claims_alone: true,
        };
        surveyor.visit(program.expression(), 0)?;
        let claims_alone = surveyor.claims_alone;
        Ok(Self {
            program,
            source: source.into(),
            claims_alone,
        })
    }

    /// Whether the rule looks at claims alone.
    #[must_use]
    pub fn looks_at_claims_alone(&self) -> bool {
        self.claims_alone
    }

    /// Evaluates the rule, or recalls how it was evaluated for the same credential.
    ///
    /// # Errors
    /// [`Reason::Forbidden`] unless the rule says yes.
    pub(super) fn check(&self, facts: &PrincipalFacts, asked: &Asked<'_>) -> Result<(), Rejection> {
        if !self.claims_alone {
            return self.evaluate(facts, asked);
        }
        match facts.kept.verdicts.find(&self.source) {
            Some(true) => Ok(()),
            Some(false) => Err(Rejection::because(
                Reason::Forbidden,
                "`when` does not hold for this credential",
            )),
            None => {
                let verdict = self.evaluate(facts, asked);
                facts.kept.verdicts.keep(&self.source, verdict.is_ok());
                verdict
            }
        }
    }

    fn evaluate(&self, facts: &PrincipalFacts, asked: &Asked<'_>) -> Result<(), Rejection> {
        let left = AtomicU32::new(MOST_VALUES);
        let variables = Variables::new(&facts.claims, asked, &left);
        let mut context = Context::with_env(Arc::clone(&LANGUAGE));
        context.set_variable_resolver(&variables);
        let refuse = |detail: String| Err(Rejection::because(Reason::Forbidden, detail));
        match Value::resolve_val(self.program.expression(), &context) {
            Ok(verdict) => match verdict.downcast_ref::<CelBool>().map(CelBool::inner) {
                Some(true) => Ok(()),
                Some(false) => refuse("`when` does not hold".to_owned()),
                None => refuse("`when` comes to no yes or no".to_owned()),
            },
            Err(why) => refuse(format!("`when` cannot be decided: {}", told(&why))),
        }
    }
}

/// Errors without the values that met in them: those are of the caller's claims.
fn told(why: &ExecutionError) -> String {
    match why {
        ExecutionError::NoSuchKey(name) => format!("`{name}` is absent"),
        ExecutionError::UnexpectedType { got, want } => format!("{got} where {want} is needed"),
        ExecutionError::NoSuchOverload(overload) => overload.to_string(),
        ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
        _ => "the types do not fit".to_owned(),
    }
}

/// What can be said before parsing, so that the parser is safe from the text.
fn check_text(source: &str) -> Result<(), String> {
    if source.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if source.len() > MOST_SOURCE {
        return Err(format!(
            "has {} bytes; {MOST_SOURCE} are the most",
            source.len()
        ));
    }
    let mut depth = 0_usize;
    for (column, character) in source.chars().enumerate() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MOST_DEPTH {
            return Err(format!(
                "column {}: more than {MOST_DEPTH} brackets are open",
                column + 1
            ));
        }
    }
    let signs = source.as_bytes().windows(MOST_DEPTH);
    if signs
        .into_iter()
        .any(|run| run.iter().all(|byte| matches!(byte, b'!' | b'-' | b' ')))
    {
        return Err(format!("has {MOST_DEPTH} signs in a row"));
    }
    Ok(())
}

fn place((line, column): (isize, isize)) -> String {
    if line > 1 {
        format!("line {line}, column {column}")
    } else {
        format!("column {}", column.max(1))
    }
}

/// Walks the tree of a rule and holds it to its bounds.
struct Surveyor<'p> {
    program: &'p Program,
    nodes: usize,
    loops: usize,
    /// Variables of the loops around.
    bound: Vec<&'p str>,
    claims_alone: bool,
}

impl<'p> Surveyor<'p> {
    fn visit(&mut self, node: &'p IdedExpr, depth: usize) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(format!("has more than {MOST_NODES} parts"));
        }
        if depth > MOST_DEPTH {
            return Err(self.at(node, format!("nests deeper than {MOST_DEPTH}")));
        }
        let below = depth + 1;
        match &node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.visit_variable(node, name),
            Expr::Select(select) => self.visit(&select.operand, below),
            Expr::List(list) => self.visit_all(&list.elements, below),
            Expr::Call(call) => {
                self.check_call(node)?;
                if let Some(target) = &call.target {
                    self.visit(target, below)?;
                }
                self.visit_all(&call.args, below)
            }
            Expr::Comprehension(_) => self.visit_loop(node, below),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err(self.at(node, "rules make no maps and no messages"))
            }
        }
    }

    fn visit_all(&mut self, nodes: &'p [IdedExpr], depth: usize) -> Result<(), String> {
        nodes.iter().try_for_each(|node| self.visit(node, depth))
    }

    fn visit_variable(&mut self, node: &IdedExpr, name: &str) -> Result<(), String> {
        if self.bound.contains(&name) {
            return Ok(());
        }
        if !VARIABLES.contains(&name) {
            let known = VARIABLES.join("`, `");
            return Err(self.at(node, format!("there is no `{name}`; known are `{known}`")));
        }
        self.claims_alone &= name == "claims";
        Ok(())
    }

    fn visit_loop(&mut self, node: &'p IdedExpr, depth: usize) -> Result<(), String> {
        let Expr::Comprehension(comprehension) = &node.expr else {
            return Ok(());
        };
        self.loops += 1;
        if self.loops > MOST_LOOPS {
            return Err(self.at(node, format!("has more than {MOST_LOOPS} loops")));
        }
        if !self.bound.is_empty() {
            return Err(self.at(node, "a loop stands within a loop"));
        }
        self.visit(&comprehension.iter_range, depth)?;
        self.bound.push(&comprehension.iter_var);
        self.bound.extend(comprehension.iter_var2.as_deref());
        self.bound.push(&comprehension.accu_var);
        for part in [
            &comprehension.accu_init,
            &comprehension.loop_cond,
            &comprehension.loop_step,
            &comprehension.result,
        ] {
            self.visit(part, depth)?;
        }
        self.bound.clear();
        Ok(())
    }

    fn check_call(&self, node: &IdedExpr) -> Result<(), String> {
        let Expr::Call(call) = &node.expr else {
            return Ok(());
        };
        let name = call.func_name.as_str();
        if !FUNCTIONS.contains(&name) {
            let name = name.trim_matches('_');
            let why = if self.bound.is_empty() {
                format!("`{name}` is not available in rules")
            } else {
                "of the loops, rules have `all` and `exists`".to_owned()
            };
            return Err(self.at(node, why));
        }
        match call.args.last().and_then(literal) {
            None if name == WITHIN => {
                Err(self.at(node, "`within` takes a network such as \"10.0.0.0/8\""))
            }
            Some(text) if name == WITHIN && text.parse::<IpNet>().is_err() => {
                Err(self.at(node, format!("`{text}` is no network such as 10.0.0.0/8")))
            }
            Some(header) if name == "_[_]" && self.is_headers(call.args.first()) => {
                if header.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    Err(self.at(node, "header names are written in lower case"))
                } else if is_readable(header) {
                    Ok(())
                } else {
                    Err(self.at(node, format!("rules cannot see the header `{header}`")))
                }
            }
            _ => Ok(()),
        }
    }

    fn is_headers(&self, node: Option<&IdedExpr>) -> bool {
        let Some(Expr::Select(select)) = node.map(|node| &node.expr) else {
            return false;
        };
        select.field == "headers"
            && matches!(&select.operand.expr, Expr::Ident(name) if name == "request")
            && !self.bound.contains(&"request")
    }

    fn at(&self, node: &IdedExpr, what: impl Into<String>) -> String {
        let what = what.into();
        let offset = self.program.source_info().offset_for(node.id);
        match offset {
            Some((start, _)) => format!("column {}: {what}", start + 1),
            None => what,
        }
    }
}

fn literal(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "the type of a function of the language"
)]
fn within<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut texts = arguments
        .iter()
        .map(|argument| argument.downcast_ref::<CelString<'_>>());
    let (address, network) = (texts.next().flatten(), texts.next().flatten());
    let address = address.and_then(|text| text.inner().parse::<IpAddr>().ok());
    let network = network.and_then(|text| text.inner().parse::<IpNet>().ok());
    match (address, network) {
        (Some(address), Some(network)) => {
            let is_within = network.contains(&address.to_canonical());
            Ok(CowVal::owned(CelBool::from(is_within)))
        }
        _ => Err(ExecutionError::function_error(WITHIN, "no address")),
    }
}
