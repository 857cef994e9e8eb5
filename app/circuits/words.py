"""What the tasks' prompts are made of."""

NAMES = (
    "Mary", "John", "Anna", "Peter", "Laura", "Simon", "Emma", "David", "Sarah", "Paul", "Alice", "Robert", "Julia",
    "Mark", "Linda", "Kevin", "Helen", "Frank", "Ruth", "Brian", "Jane", "Adam", "Kate", "Eric", "Rose", "Alan", "Lucy",
    "Henry", "Grace", "Oscar", "Clara", "Tom", "Amy", "Jack", "Susan", "George", "Daniel", "Maria", "Thomas", "James",
    "Michael", "William", "Richard", "Martin", "Emily", "Sam", "Ben", "Anne", "Victor", "Alex", "Charles", "Diana",
)  # fmt: skip
PLACES = (
    "market", "library", "garden", "station", "office", "school", "museum", "harbor", "kitchen", "beach", "park",
    "store", "hotel", "theater", "farm", "church", "airport", "bridge", "river", "castle", "factory",
)  # fmt: skip
THINGS = (
    "letter", "book", "key", "lamp", "map", "ring", "basket", "ticket", "hat", "bottle", "phone", "coat", "cup", "rope",
    "bag", "camera", "box", "ball",
)  # fmt: skip
EVENTS = (
    "war", "festival", "journey", "drought", "strike", "trial", "reign", "siege", "project", "campaign", "expedition",
    "rebellion", "dispute", "construction", "study", "contract", "voyage", "famine", "alliance", "occupation", "debate",
)  # fmt: skip
ARGUMENTS = (
    "load", "size", "file", "last", "first", "name", "value", "index", "path", "data", "text", "key", "count", "limit",
    "mode", "level", "color", "width", "height", "weight", "start", "stop", "total", "order", "group", "label", "image",
    "model", "table", "field", "query", "token", "state", "user", "event", "task", "price", "point", "shape", "block",
)  # fmt: skip
PLAIN = (
    "water", "year", "city", "road", "glass", "stone", "horse", "bird", "fish", "tree", "house", "wood", "iron", "gold",
    "salt", "sugar", "paper", "light", "sound", "morning", "winter", "bread", "cloud", "bridge", "flower", "mountain",
)  # fmt: skip
