//! The values that an import writes.

/// A mapping in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(pub Vec<(String, Value)>);

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text; quoted where YAML needs it.
    Text(String),
    /// A number or boolean.
    Raw(String),
    /// A list.
    List(Vec<Value>),
    /// A mapping.
    Map(Map),
}

impl Map {
    /// Sets a key.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Sets a key where there is a value.
    pub fn put(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The mapping at a key, made where there is none.
    pub fn child(&mut self, key: &str) -> &mut Self {
        let index =
            match self.0.iter().position(|(name, value)| name == key && matches!(value, Value::Map(_))) {
                Some(index) => index,
                None => {
                    self.0.retain(|(name, _)| name != key);
                    self.0.push((key.to_owned(), Value::Map(Self::default())));
                    self.0.len() - 1
                }
            };
        match &mut self.0[index].1 {
            Value::Map(map) => map,
            _ => unreachable!("the index is that of a mapping"),
        }
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Raw(number.to_string())
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Raw(yes.to_string())
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}

impl From<Vec<String>> for Value {
    /// One item stands alone.
    fn from(mut items: Vec<String>) -> Self {
        match items.pop() {
            Some(only) if items.is_empty() => Self::Text(only),
            Some(last) => {
                items.push(last);
                Self::List(items.into_iter().map(Self::Text).collect())
            }
            None => Self::List(Vec::new()),
        }
    }
}
