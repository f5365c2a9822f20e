//! The macro [`section!`], and those that it is made of.
//!
//! `keys!` brings each line of a declaration into one form, which the others read:
//! `{ key [description] [bounds] KEY [Written] [field: Type as Notation = default] }`, with missing parts left empty,
//! or `{ flat field: Type }` for the keys of another section, `{ built field: Type }` where only `build` gets them.

/// Reads one key into its field, or keeps it for `build`, and returns.
macro_rules! put {
    ($self:ident $rest:ident $key:ident $value:ident { flat $field:ident: $type:ty }) => {
        let Some($value) = $crate::section::Section::put(&mut $self.$field, &mut $rest.$field, $key, $value)?
        else {
            return Ok(None);
        };
    };
    ($self:ident $rest:ident $key:ident $value:ident { built $field:ident: $type:ty }) => {
        let Some($value) =
            $crate::section::Section::put(&mut <$type>::default(), &mut $rest.$field, $key, $value)?
        else {
            return Ok(None);
        };
    };
    ($self:ident $rest:ident $key:ident $value:ident { key $about:tt $bounds:tt $name:ident [$written:ty] $field:tt }) => {
        if $key == $crate::section::name(stringify!($name)) {
            $rest.$name = Some(serde_json::from_value($value)?);
            return Ok(None);
        }
    };
    ($self:ident $rest:ident $key:ident $value:ident
     { key $about:tt $bounds:tt $name:ident [] [$field:ident: $type:ty as $notation:ty = $default:expr] }) => {
        if $key == $crate::section::name(stringify!($name)) {
            <$notation as $crate::section::Notation<$type>>::set(&mut $self.$field, $value)?;
            return Ok(None);
        }
    };
}

/// Adds the schema of one key.
macro_rules! property {
    ($to:ident $default:ident $generator:ident { $flat:ident $field:ident: $type:ty }) => {
        $to.extend(<$type as $crate::section::Section>::properties($generator));
    };
    ($to:ident $base:ident $generator:ident { key [$($doc:literal)*] [$($bound:ident = $limit:expr),*] $name:ident $written:tt $field:tt }) => {
        #[allow(unused_mut, reason = "most keys have no bounds")]
        let mut schema = $crate::section::key(
            $crate::section::written!($generator $written $field),
            &[$($doc),*],
            $crate::section::default_of!($base $field),
        );
        $($crate::section::extend(
            &mut schema, $crate::section::name(stringify!($bound)), serde_json::json!($limit),
        );)*
        $to.insert($crate::section::name(stringify!($name)).into(), schema.to_value());
    };
}

/// The schema of what the file writes.
macro_rules! written {
    ($generator:ident [$written:ty] $field:tt) => {
        $generator.subschema_for::<$written>()
    };
    ($generator:ident [] [$field:ident: $type:ty as $notation:ty = $default:expr]) => {
        <$notation as $crate::section::Notation<$type>>::schema($generator)
    };
}

/// A key's default as the file would write it.
macro_rules! default_of {
    ($base:ident []) => {
        serde_json::Value::Null
    };
    ($base:ident [$field:ident: $type:ty as $notation:ty = $default:expr]) => {
        <$notation as $crate::section::Show<$type>>::show(&$base.$field)
    };
}

/// Shows one key.
macro_rules! show {
    ($to:ident $self:ident { flat $field:ident: $type:ty }) => {
        $to.extend($crate::section::Section::show(&$self.$field));
    };
    ($to:ident $self:ident { built $field:ident: $type:ty }) => {};
    ($to:ident $self:ident { key $about:tt $bounds:tt $name:ident $written:tt [] }) => {};
    ($to:ident $self:ident
     { key $about:tt $bounds:tt $name:ident $written:tt [$field:ident: $type:ty as $notation:ty = $default:expr] }) => {
        $to.insert(
            $crate::section::name(stringify!($name)).into(),
            <$notation as $crate::section::Show<$type>>::show(&$self.$field),
        );
    };
}

/// Sorts the lines of a declaration: fields, what is kept for `build`, and every key in its order.
macro_rules! keys {
    // The keys of another section.
    ($head:tt $tail:tt [$($fields:tt)*] [$($rest:tt)*] [$($keys:tt)*]
     $(#[doc = $doc:literal])* ..$field:ident: $type:ty, $($more:tt)*) => {
        $crate::section::keys! {
            $head $tail
            [$($fields)* { [$($doc)*] $field: $type = <$type>::default() }]
            [$($rest)* $field: <$type as $crate::section::Section>::Rest,]
            [$($keys)* { flat $field: $type }]
            $($more)*
        }
    };
    // The same, where the section has no field of them.
    ($head:tt $tail:tt $fields:tt [$($rest:tt)*] [$($keys:tt)*] ..$field:ident($type:ty), $($more:tt)*) => {
        $crate::section::keys! {
            $head $tail $fields
            [$($rest)* $field: <$type as $crate::section::Section>::Rest,]
            [$($keys)* { built $field: $type }]
            $($more)*
        }
    };
    // One key, in any of its forms.
    ($head:tt $tail:tt $fields:tt $rest:tt $keys:tt
     $(#[doc = $doc:literal])* $(#[schema($($bound:ident = $limit:expr),+ $(,)?)])?
     $key:ident $(($written:ty))? $(in $field:ident)? $(: $type:ty $(as $notation:ty)? = $default:expr)?, $($more:tt)*) => {
        $crate::section::keys! {
            @ $head $tail $fields $rest $keys
            [$($doc)*] [$($($bound = $limit),+)?] $key [$($written)?] [$($field)?] [$($type, [$($notation)?], $default)?]
            $($more)*
        }
    };
    // The field has the key's name and the plain notation, unless the line says otherwise.
    (@ $head:tt $tail:tt $fields:tt $rest:tt $keys:tt
     $about:tt $bounds:tt $key:ident $written:tt [] [$($field:tt)+] $($more:tt)*) => {
        $crate::section::keys! { @ $head $tail $fields $rest $keys $about $bounds $key $written [$key] [$($field)+] $($more)* }
    };
    (@ $head:tt $tail:tt $fields:tt $rest:tt $keys:tt
     $about:tt $bounds:tt $key:ident $written:tt [$field:ident] [$type:ty, [], $default:expr] $($more:tt)*) => {
        $crate::section::keys! {
            @ $head $tail $fields $rest $keys
            $about $bounds $key $written [$field] [$type, [$crate::section::Plain], $default] $($more)*
        }
    };
    (@ $head:tt $tail:tt [$($fields:tt)*] $rest:tt $keys:tt
     $about:tt $bounds:tt $key:ident $written:tt [$field:ident] [$type:ty, [$notation:ty], $default:expr] $($more:tt)*) => {
        $crate::section::keys! {
            @@ $head $tail [$($fields)* { $about $field: $type = $default }] $rest $keys
            $about $bounds $key $written [$field: $type as $notation = $default] $($more)*
        }
    };
    (@ $head:tt $tail:tt $fields:tt $rest:tt $keys:tt
     $about:tt $bounds:tt $key:ident $written:tt [] [] $($more:tt)*) => {
        $crate::section::keys! { @@ $head $tail $fields $rest $keys $about $bounds $key $written [] $($more)* }
    };
    // With `[Written]` the value goes to `build`; without it, directly into the field.
    (@@ $head:tt $tail:tt $fields:tt [$($rest:tt)*] [$($keys:tt)*]
     $about:tt $bounds:tt $key:ident [$written:ty] $field:tt $($more:tt)*) => {
        $crate::section::keys! {
            $head $tail $fields [$($rest)* $key: Option<$written>,]
            [$($keys)* { key $about $bounds $key [$written] $field }]
            $($more)*
        }
    };
    (@@ $head:tt $tail:tt $fields:tt $rest:tt [$($keys:tt)*]
     $about:tt $bounds:tt $key:ident [] $field:tt $($more:tt)*) => {
        $crate::section::keys! { $head $tail $fields $rest [$($keys)* { key $about $bounds $key [] $field }] $($more)* }
    };
    // All lines are sorted.
    (
        [$title:literal [$($about:literal)*] $name:ident [$($derive:ident)*]]
        [
            $(holds { $($(#[doc = $held_doc:literal])* $held:ident: $held_type:ty = $held_default:expr),+ $(,)? })?
            $(requires $($required:ident),+)?
            $(or $short:ident)?
            $(then $($then:ident)::+)?
            $(shows $($shows:ident)::+)?
            $(rules $(unless $unless:ident $word:literal)? {
                $($rule:ident [$($of:ident),+ $(,)?] $([$($other:ident),+ $(,)?])? $what:literal $help:literal;)+
            })?
        ]
        [$({ [$($doc:literal)*] $field:ident: $type:ty = $default:expr })*]
        [$($kept:ident: $written:ty,)*]
        [$($key:tt)*]
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq $(, $derive)*)]
        pub struct $name {
            $(
                $(#[doc = $doc])*
                #[doc = concat!("\n\nDefault: `", stringify!($default), "`.")]
                pub $field: $type,
            )*
            $($(
                $(#[doc = $held_doc])*
                pub $held: $held_type,
            )+)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* $($($held: $held_default,)+)? }
            }
        }

        const _: () = {
            #[derive(Debug, Default)]
            pub(crate) struct Rest {
                $(pub(crate) $kept: $written,)*
            }

            impl $crate::section::Section for $name {
                type Rest = Rest;

                const BUILT: bool = {
                    let kept: &[&str] = &[$(stringify!($kept)),*];
                    !kept.is_empty()
                };

                const SHORT: Option<&'static str> = {
                    let short: &[&str] = &[$(stringify!($short))?];
                    short.first().copied()
                };

                const RULES: $crate::relations::SectionRules = $crate::relations::SectionRules {
                    unless: &[$($((stringify!($unless), $word))?)?],
                    rows: &[$($($crate::relations::KeyRule::$rule(
                        &[$(stringify!($of)),+],
                        &[$($(stringify!($other)),+)?],
                        $what,
                        $help,
                    )),+)?],
                };

                fn set(
                    &mut self,
                    rest: &mut Rest,
                    given: serde_json::Map<String, serde_json::Value>,
                ) -> serde_json::Result<()> {
                    for (key, value) in given {
                        if self.put(rest, &key, value)?.is_some() {
                            return Err(serde::de::Error::custom(format!("unknown key `{key}`")));
                        }
                    }
                    $($($then)::+(self);)?
                    Ok(())
                }

                #[allow(unused_variables, reason = "most sections keep nothing for `build`")]
                fn put(
                    &mut self,
                    rest: &mut Rest,
                    key: &str,
                    value: serde_json::Value,
                ) -> serde_json::Result<Option<serde_json::Value>> {
                    $($crate::section::put!(self rest key value $key);)*
                    Ok(Some(value))
                }

                fn properties(
                    generator: &mut schemars::SchemaGenerator,
                ) -> serde_json::Map<String, serde_json::Value> {
                    let _default = Self::default();
                    let mut properties = serde_json::Map::new();
                    $($crate::section::property!(properties _default generator $key);)*
                    properties
                }

                #[allow(unused_mut, reason = "some sections have nothing to show")]
                fn show(&self) -> serde_json::Map<String, serde_json::Value> {
                    let mut shown = serde_json::Map::new();
                    $($crate::section::show!(shown self $key);)*
                    $($($shows)::+(self, &mut shown);)?
                    shown
                }
            }
        };

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                const { assert!(!<$name as $crate::section::Section>::BUILT, "it is read by `Read`") };
                $crate::section::ParsedSection::deserialize(deserializer).map(|read| read.section)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::section::Section::show(self).serialize(serializer)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn schema_id() -> std::borrow::Cow<'static, str> {
                concat!(module_path!(), "::", stringify!($name)).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $crate::section::schema::<Self>(
                    generator,
                    $title,
                    &[$($about),*],
                    &[$($(stringify!($required)),+)?],
                )
            }
        }
    };
}

/// Declares a section: its title in messages, its description, and its keys; the forms of a key are described in [`crate::section`].
///
/// `#[schema(…)]` before a key adds bounds and examples.
macro_rules! section {
    (
        $title:literal
        $(#[doc = $about:literal])*
        pub struct $name:ident $(: $($derive:ident),+)? { $($keys:tt)* }
        $($tail:tt)*
    ) => {
        $crate::section::keys! { [$title [$($about)*] $name [$($($derive)+)?]] [$($tail)*] [] [] [] $($keys)* }
    };
}

pub(crate) use {default_of, keys, property, put, section, show, written};
