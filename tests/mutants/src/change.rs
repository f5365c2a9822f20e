//! The changes: mistakes that a person could make and that compile.
//!
//! Each change stands behind a question for its number (`crate::mutant(7)`).
//! Constants, `const fn`, patterns and the arguments of macros stay as they are.

use std::collections::BTreeSet;

use syn::{
    Arm, Attribute, BinOp, Block, Expr, ExprBinary, ExprMatch, GenericArgument, ImplItemFn, Item, ItemFn,
    Macro, Pat, PathArguments, ReturnType, Signature, Stmt, TraitItemFn, Type, UnOp, parse_quote,
    spanned::Spanned,
    visit_mut::{self, VisitMut},
};

/// One change.
#[derive(Debug)]
pub(crate) struct SourceChange {
    pub(crate) id: usize,
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// Makes the changes of one file after the other.
/// A change has the same number in each build, whichever changes are left out.
pub(crate) struct Rewriter<'a> {
    pub(crate) file: String,
    pub(crate) changes: Vec<SourceChange>,
    /// Changes that do not compile.
    left_out: &'a BTreeSet<usize>,
    next: usize,
}

impl<'a> Rewriter<'a> {
    pub(crate) fn new(left_out: &'a BTreeSet<usize>) -> Self {
        Self { file: String::new(), changes: Vec::new(), left_out, next: 0 }
    }

    /// The question whether the change is made; nothing if the change is left out.
    fn change(&mut self, line: usize, what: impl Into<String>) -> Option<Expr> {
        let id = self.next;
        self.next += 1;
        if self.left_out.contains(&id) {
            return None;
        }
        self.changes.push(SourceChange { id, file: self.file.clone(), line, what: what.into() });
        Some(parse_quote!(crate::mutant(#id)))
    }

    /// Makes `value` false where it is true, and true where it is false.
    fn negate(&mut self, value: &mut Expr, at: usize, what: &str) {
        if let Some(made) = self.change(at, what) {
            *value = parse_quote!(((#value) != #made));
        }
    }

    /// `at` has the lines of the operands.
    fn binary(&mut self, expression: &mut Expr, at: [usize; 2]) {
        let Expr::Binary(binary) = expression else { return };
        match binary.op {
            BinOp::And(_) => {
                for (operand, at) in [&mut binary.left, &mut binary.right].into_iter().zip(at) {
                    if !has_let(operand)
                        && let Some(made) = self.change(at, "operand of && left out")
                    {
                        **operand = parse_quote!(((#operand) || #made));
                    }
                }
            }
            BinOp::Or(_) => {
                for (operand, at) in [&mut binary.left, &mut binary.right].into_iter().zip(at) {
                    if let Some(made) = self.change(at, "operand of || left out") {
                        **operand = parse_quote!(((#operand) && !#made));
                    }
                }
            }
            op => {
                let mut whole = Expr::Binary(binary.clone());
                for (other, what) in others(op) {
                    if let Some(made) = self.change(at[0], what) {
                        let changed = ExprBinary { op: other, ..binary.clone() };
                        whole = parse_quote!((if #made { #changed } else { #whole }));
                    }
                }
                *expression = whole;
            }
        }
    }

    /// Leaves out each arm before one that takes everything.
    fn arms(&mut self, whole: &mut ExprMatch) {
        let Some((last, arms)) = whole.arms.split_last_mut() else { return };
        if last.guard.is_some() || !takes_everything(&last.pat) {
            return;
        }
        for arm in arms.iter_mut().filter(|arm| arm.guard.is_none()) {
            if let Some(made) = self.change(arm.pat.span().start().line, "arm left out") {
                arm.guard = Some((parse_quote!(if), parse_quote!(!#made)));
            }
        }
    }

    /// Lets a function return without doing anything.
    fn function(&mut self, signature: &Signature, block: &mut Block) {
        let returns = match &signature.output {
            ReturnType::Default => vec![(parse_quote!(return), "nothing")],
            ReturnType::Type(_, result) => answers(result),
        };
        for (answer, what) in returns {
            let (name, answer): (_, Expr) = (&signature.ident, answer);
            let what = format!("`{name}` only returns {what}");
            if let Some(made) = self.change(name.span().start().line, what) {
                block.stmts.insert(0, parse_quote!(if #made { #answer; }));
            }
        }
    }
}

impl VisitMut for Rewriter<'_> {
    fn visit_item_mut(&mut self, item: &mut Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            Item::Const(_) | Item::Static(_) | Item::Macro(_) | Item::Enum(_) | Item::Struct(_) => return,
            _ => return visit_mut::visit_item_mut(self, item),
        };
        if !is_test(attributes) {
            visit_mut::visit_item_mut(self, item);
        }
    }

    fn visit_item_fn_mut(&mut self, item: &mut ItemFn) {
        if item.sig.constness.is_none() {
            self.visit_block_mut(&mut item.block);
            self.function(&item.sig, &mut item.block);
        }
    }

    fn visit_impl_item_fn_mut(&mut self, item: &mut ImplItemFn) {
        if item.sig.constness.is_none() && !is_test(&item.attrs) {
            self.visit_block_mut(&mut item.block);
            self.function(&item.sig, &mut item.block);
        }
    }

    fn visit_trait_item_fn_mut(&mut self, item: &mut TraitItemFn) {
        if let Some(block) = &mut item.default {
            self.visit_block_mut(block);
            self.function(&item.sig, block);
        }
    }

    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}
    fn visit_trait_item_const_mut(&mut self, _: &mut syn::TraitItemConst) {}
    fn visit_angle_bracketed_generic_arguments_mut(&mut self, _: &mut syn::AngleBracketedGenericArguments) {}
    fn visit_attribute_mut(&mut self, _: &mut Attribute) {}
    fn visit_macro_mut(&mut self, _: &mut Macro) {}
    fn visit_pat_mut(&mut self, _: &mut syn::Pat) {}
    fn visit_type_mut(&mut self, _: &mut Type) {}

    fn visit_block_mut(&mut self, block: &mut Block) {
        for statement in &mut block.stmts {
            let (at, can_be_left_out) = (statement.span().start().line, can_be_left_out(statement));
            visit_mut::visit_stmt_mut(self, statement);
            if let Stmt::Expr(expression, Some(_)) = statement
                && can_be_left_out
                && let Some(made) = self.change(at, "statement left out")
            {
                *statement = parse_quote!(if !#made { #expression; });
            }
        }
    }

    fn visit_arm_mut(&mut self, arm: &mut Arm) {
        let negated = arm.guard.as_ref().filter(|(_, guard)| !has_own_changes(guard));
        let negated = negated.map(|(_, guard)| line(guard));
        visit_mut::visit_arm_mut(self, arm);
        if let Some((_, guard)) = &mut arm.guard
            && let Some(at) = negated
        {
            self.negate(guard, at, "condition negated");
        }
    }

    fn visit_expr_mut(&mut self, expression: &mut Expr) {
        // Looked at before the parts are rewritten: a part looks different afterwards, or not if its change is left out.
        let at = line(expression);
        let (negated, lines) = match &*expression {
            Expr::Const(_) => return,
            Expr::Binary(binary) => (false, [line(&binary.left), line(&binary.right)]),
            Expr::If(whole) => (!has_own_changes(&whole.cond), [line(&whole.cond); 2]),
            Expr::While(whole) => (!has_own_changes(&whole.cond), [line(&whole.cond); 2]),
            Expr::Unary(not) => (matches!(not.op, UnOp::Not(_)) && !has_own_changes(&not.expr), [at; 2]),
            _ => (is_question(expression), [at; 2]),
        };
        if let Expr::Repeat(repeat) = expression {
            // Its length is a constant.
            return self.visit_expr_mut(&mut repeat.expr);
        }
        visit_mut::visit_expr_mut(self, expression);
        match expression {
            Expr::Binary(_) => self.binary(expression, lines),
            Expr::Match(whole) => self.arms(whole),
            Expr::If(whole) if negated => self.negate(&mut whole.cond, lines[0], "condition negated"),
            Expr::While(whole) if negated => self.negate(&mut whole.cond, lines[0], "condition negated"),
            Expr::Unary(_) if negated => self.negate(expression, at, "`!` left out"),
            _ if negated => self.negate(expression, at, "answer negated"),
            _ => {}
        }
    }
}

fn line(expression: &Expr) -> usize {
    expression.span().start().line
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_test = |list: &syn::MetaList| list.tokens.to_string().contains("test");
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(is_test)
    })
}

fn has_let(expression: &Expr) -> bool {
    match expression {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        Expr::Paren(paren) => has_let(&paren.expr),
        _ => false,
    }
}

/// Whether changes of this condition's own parts already turn it round.
fn has_own_changes(condition: &Expr) -> bool {
    match condition {
        Expr::Paren(paren) => has_own_changes(&paren.expr),
        Expr::Binary(_) | Expr::Let(_) | Expr::Macro(_) => true,
        Expr::Unary(unary) => matches!(unary.op, UnOp::Not(_)),
        _ => is_question(condition),
    }
}

/// Whether the name of what is called says that the result is yes or no.
fn is_question(expression: &Expr) -> bool {
    let name = match expression {
        Expr::MethodCall(call) => call.method.to_string(),
        Expr::Macro(call) => return call.mac.path.is_ident("matches"),
        _ => return false,
    };
    let begins = ["contains", "ends_with", "eq_", "has_", "is_", "starts_with"];
    begins.iter().any(|begin| name.starts_with(begin)) || name == "any" || name == "all"
}

fn takes_everything(pattern: &Pat) -> bool {
    match pattern {
        Pat::Wild(_) => true,
        // An upper-case name is a constant.
        Pat::Ident(name) => {
            name.subpat.is_none() && name.ident.to_string().starts_with(|first: char| first.is_lowercase())
        }
        _ => false,
    }
}

fn can_be_left_out(statement: &Stmt) -> bool {
    let Stmt::Expr(expression, Some(_)) = statement else { return false };
    match expression {
        Expr::Binary(binary) => is_assignment(binary.op),
        Expr::Assign(_)
        | Expr::Await(_)
        | Expr::Break(_)
        | Expr::Call(_)
        | Expr::Continue(_)
        | Expr::MethodCall(_)
        | Expr::Return(_)
        | Expr::Try(_) => true,
        _ => false,
    }
}

fn is_assignment(op: BinOp) -> bool {
    use BinOp::{
        AddAssign, BitAndAssign, BitOrAssign, BitXorAssign, DivAssign, MulAssign, RemAssign, ShlAssign,
        ShrAssign, SubAssign,
    };
    let add = matches!(op, AddAssign(_) | DivAssign(_) | MulAssign(_) | RemAssign(_) | SubAssign(_));
    add || matches!(op, BitAndAssign(_) | BitOrAssign(_) | BitXorAssign(_) | ShlAssign(_) | ShrAssign(_))
}

/// The operators that take another one's place.
fn others(op: BinOp) -> Vec<(BinOp, &'static str)> {
    match op {
        BinOp::Lt(_) => vec![(parse_quote!(<=), "<= for <"), (parse_quote!(>), "> for <")],
        BinOp::Le(_) => vec![(parse_quote!(<), "< for <="), (parse_quote!(>), "> for <=")],
        BinOp::Gt(_) => vec![(parse_quote!(>=), ">= for >"), (parse_quote!(<), "< for >")],
        BinOp::Ge(_) => vec![(parse_quote!(>), "> for >="), (parse_quote!(<), "< for >=")],
        BinOp::Eq(_) => vec![(parse_quote!(!=), "!= for ==")],
        BinOp::Ne(_) => vec![(parse_quote!(==), "== for !=")],
        BinOp::Add(_) => vec![(parse_quote!(-), "- for +")],
        BinOp::Sub(_) => vec![(parse_quote!(+), "+ for -")],
        BinOp::Mul(_) => vec![(parse_quote!(/), "/ for *")],
        BinOp::Div(_) => vec![(parse_quote!(*), "* for /")],
        _ => Vec::new(),
    }
}

fn answers(result: &Type) -> Vec<(Expr, &'static str)> {
    let Type::Path(path) = result else { return Vec::new() };
    let Some(last) = path.path.segments.last() else { return Vec::new() };
    match last.ident.to_string().as_str() {
        "bool" => vec![(parse_quote!(return true), "true"), (parse_quote!(return false), "false")],
        "Option" => vec![(parse_quote!(return None), "None")],
        "String" | "Vec" => vec![(parse_quote!(return Default::default()), "an empty one")],
        "Duration" | "f64" | "u8" | "u16" | "u32" | "u64" | "usize" => {
            vec![(parse_quote!(return Default::default()), "0")]
        }
        "Result" => {
            let PathArguments::AngleBracketed(arguments) = &last.arguments else { return Vec::new() };
            let Some(GenericArgument::Type(Type::Tuple(good))) = arguments.args.first() else {
                return Vec::new();
            };
            if good.elems.is_empty() { vec![(parse_quote!(return Ok(())), "Ok(())")] } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}
