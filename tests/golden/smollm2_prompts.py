"""Fifty prompts of 1 to 2,000 tokens, written for the test: prose, code, lists, Chinese, chats, loops."""

from __future__ import annotations

TIDES = """\
The sea rises and falls twice a day because the Moon pulls harder on the near side of the Earth than on \
the far side. The water bulges in both directions, and as the planet turns beneath those bulges each coast \
passes through two high tides and two low ones. The Sun does the same with less force. When the Sun and \
the Moon stand in one line, at new moon and at full moon, their pulls add up and the spring tides come; \
when they stand at a right angle, the neap tides are small. The shape of the coast matters as much as the \
sky: a narrow bay squeezes the water upwards, and a closed sea hardly moves at all."""

BAKERY = """\
Every morning at four o'clock the old baker unlocked the door of his shop, lit the oven, and put on his \
white apron. He mixed flour, water, salt and yeast in a large wooden bowl, and he did not need a scale, \
because his hands had learned the weight of bread forty years ago. At six the first customers came: the \
postman, who bought two rolls, and the teacher, who bought a small brown loaf and always asked about the \
weather. On the day when the river flooded the square, the baker carried the bread upstairs and sold it \
from the window, in a basket on a rope."""

STEAM = """\
A steam engine turns heat into motion. Water is boiled in a closed vessel, and the steam that forms needs \
far more room than the water did. Led into a cylinder, it pushes a piston to the other end; a valve then \
lets the spent steam out and fresh steam in on the other side, so that the piston moves back again. A rod \
and a crank change this movement to and fro into the turning of a wheel. Early engines wasted most of \
their coal, since the cylinder was cooled with water at every stroke. A separate condenser, which stays \
cold while the cylinder stays hot, made the engine several times better, and with it factories could be \
built far away from rivers."""

GARDEN = """\
A vegetable garden does best when the crops change their places every year. Beans and peas leave nitrogen \
in the soil; cabbages and lettuce use it up. Carrots and onions like ground that was manured the year \
before. Tomatoes need a warm wall and a stick to climb on. Water in the morning, not in the evening, so \
that the leaves are dry at night and snails stay away. Cut the grass paths short. In autumn cover the beds \
with leaves; the worms will carry them down, and in spring the soil will be dark and easy to dig."""

LETTER = """\
Dear Anna,

Thank you for your letter and for the photographs of the new house. The kitchen looks bright, and I like \
the blue door. We arrived here on Monday after a long journey by train. It rained for three days, but now \
the sun is shining and we can see the mountains from the window. Yesterday we walked to the lake. The \
water was too cold for swimming, so we sat on a bench, ate apples and watched the boats. Peter has caught \
a cold and stays in bed with a book. I hope that you will visit us in the summer.

With love,
Margaret"""

MEMO = """\
To: all staff. From: the office of the director. Subject: keys and visitors. From the first of March every \
visitor has to sign the book at the front desk and wear a badge. Employees who forget their key can borrow \
one for a day; it must be returned before six o'clock in the evening. The side entrance will be locked on \
weekends. Deliveries are accepted at the ramp between eight and eleven. Please report lost keys at once, \
because the locks then have to be changed. Questions can be sent to the office on the second floor."""

STARS = """\
Stars are born in cold clouds of gas and dust. Gravity draws a cloud together until its centre is so hot \
and dense that hydrogen begins to fuse into helium. The energy set free holds the star up against its own \
weight. A star like the Sun lives for about ten billion years in this balance. A star twenty times as \
heavy burns its fuel thousands of times faster and lives only for some millions of years; then its core \
collapses, the outer layers are thrown off in a supernova, and the elements made in it become part of the \
next generation of stars and planets."""

LIBRARY = """\
The library keeps its books in three halls. In the first hall stand the books that are asked for every \
week; in the second those that are asked for every year; in the third, which is cold and has no windows, \
those that nobody has asked for in a lifetime. The librarian knows that the order is never right. A song \
on the radio, a trial, a film, and a book from the third hall is wanted by everybody. So she walks through \
the third hall each evening with a lamp and reads the titles aloud, in order that at least one person has \
heard them."""

PROSE = (TIDES, BAKERY, STEAM, GARDEN, LETTER, MEMO, STARS, LIBRARY)

PYTHON = '''\
from collections import Counter
from pathlib import Path


def count_words(path: Path) -> Counter[str]:
    """Count the words of a text file, ignoring case."""
    counts: Counter[str] = Counter()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            counts.update(word.strip(".,;:!?").lower() for word in line.split())
    return counts


def most_common(path: Path, n: int = 10) -> list[tuple[str, int]]:
    """Return the n most common words with their counts."""
    return count_words(path).most_common(n)


class Stack:
    def __init__(self) -> None:
        self.items: list[int] = []

    def push(self, item: int) -> None:
        self.items.append(item)

    def pop(self) -> int:
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()
'''

C = """\
#include <stdio.h>
#include <stdlib.h>

/* Sort an array of integers by insertion. */
static void insertion_sort(int *values, size_t count) {
    for (size_t i = 1; i < count; i++) {
        int value = values[i];
        size_t j = i;
        while (j > 0 && values[j - 1] > value) {
            values[j] = values[j - 1];
            j--;
        }
        values[j] = value;
    }
}

int main(void) {
    int values[] = {5, 2, 9, 1, 7};
    insertion_sort(values, sizeof values / sizeof values[0]);
    for (size_t i = 0; i < 5; i++) printf("%d\\n", values[i]);
    return EXIT_SUCCESS;
}
"""

JAVASCRIPT = """\
export async function fetchJson(url, options = {}) {
  const response = await fetch(url, { ...options, headers: { Accept: "application/json" } });
  if (!response.ok) {
    throw new Error(`request failed: ${response.status} ${response.statusText}`);
  }
  return response.json();
}

document.querySelector("#save").addEventListener("click", async (event) => {
  event.preventDefault();
  const result = await fetchJson("/api/items", { method: "POST" });
  console.log(result.id);
});
"""

SQL = """\
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers(id), total REAL);

SELECT customers.name, COUNT(orders.id) AS n_orders, SUM(orders.total) AS total
FROM customers
LEFT JOIN orders ON orders.customer_id = customers.id
WHERE customers.city = 'Berlin'
GROUP BY customers.id
HAVING COUNT(orders.id) > 3
ORDER BY total DESC
LIMIT 10;
"""

JSON = """\
{
  "name": "weather-station",
  "version": "2.1.0",
  "sensors": [
    {"id": 1, "kind": "temperature", "unit": "celsius", "value": 21.5},
    {"id": 2, "kind": "humidity", "unit": "percent", "value": 48.0},
    {"id": 3, "kind": "pressure", "unit": "hectopascal", "value": 1013.2}
  ],
  "active": true,
  "location": {"city": "Lisbon", "latitude": 38.72, "longitude": -9.14}
}
"""

CODE = (PYTHON, C, JAVASCRIPT, SQL, JSON)

SHOPPING = """\
Shopping list:
- 2 litres of milk
- 500 g of butter
- 12 eggs
- 1 loaf of bread
- 3 onions
- 1 kg of potatoes
- salt and pepper
- coffee
"""

STEPS = """\
# How to change a bicycle tyre

1. Turn the bicycle upside down.
2. Open the brake and loosen the nuts of the wheel.
3. Take the wheel out of the frame.
4. Let the rest of the air out.
5. Lift the tyre over the rim with two levers.
6. Pull out the tube and find the hole.
7. Clean the place, put on the glue and press the patch on it.
8. Put the tube back, then the tyre, and pump it up.
"""

TABLE = """\
| Planet  | Diameter (km) | Moons | Day (hours) |
|---------|---------------|-------|-------------|
| Mercury | 4,879         | 0     | 4222.6      |
| Venus   | 12,104        | 0     | 2802.0      |
| Earth   | 12,756        | 1     | 24.0        |
| Mars    | 6,792         | 2     | 24.7        |
| Jupiter | 142,984       | 95    | 9.9         |
"""

CAPITALS = """\
Country: France. Capital: Paris.
Country: Japan. Capital: Tokyo.
Country: Italy. Capital: Rome.
Country: Egypt. Capital: Cairo.
Country: Canada. Capital: Ottawa.
Country: Spain. Capital: Madrid.
Country: Norway. Capital:"""

LISTS = (SHOPPING, STEPS, TABLE, CAPITALS)

CHINESE = (
    "北京是中国的首都，也是全国的政治和文化中心。这座城市有三千多年的历史。",
    "春天来了，公园里的花都开了。孩子们在草地上放风筝，老人们坐在长椅上晒太阳。天气不冷也不热，正是出门走走的好时候。",
    "公司规定：员工每年有十五天带薪假期。请假需要提前三天向部门经理提出申请，并填写请假单。病假应提供医院的证明。",
    "问：水在多少度时沸腾？\n答：在标准大气压下，水在一百摄氏度时沸腾。\n问：水在多少度时结冰？\n答：",
)

DEFAULT_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def chat(*turns: str, system: str = DEFAULT_SYSTEM) -> str:
    """Write a conversation, user first, the way SmolLM2's chat template does."""
    roles = ("user", "assistant")
    text = f"<|im_start|>system\n{system}<|im_end|>\n"
    for i, turn in enumerate(turns):
        text += f"<|im_start|>{roles[i % 2]}\n{turn}<|im_end|>\n"
    return text + "<|im_start|>assistant\n" if len(turns) % 2 else text


def answer_from(passages: tuple[str, ...], question: str) -> str:
    """Write a conversation that asks about numbered passages, as retrieval does."""
    numbered = "\n\n".join(f"[{i}] {passage}" for i, passage in enumerate(passages, 1))
    system = "Answer from the passages only and cite them by number."
    return chat(f"{numbered}\n\nQuestion: {question}", system=system)


CHATS = (
    chat("What is the capital of France?"),
    chat("Hello!", "Hello! How can I help you today?", "Write a short poem about the sea."),
    chat("Explain photosynthesis to a child of ten.", system="You are a patient teacher."),
    chat("Fix the grammar: she go to school every days.", "She goes to school every day.", "Why?"),
    chat(f"Summarise this letter in one sentence.\n\n{LETTER}"),
    chat(f"What does this function do?\n\n```python\n{PYTHON}```"),
    chat("用中文介绍一下你自己。"),
    answer_from((TIDES, STARS), "When do spring tides come?"),
    answer_from((MEMO, BAKERY, GARDEN), "When is the side entrance locked?"),
    answer_from((STEAM, LIBRARY, TIDES, STARS), "What made the steam engine several times better?"),
)

# A loop of one token has no place here: on "ha" * 60 llama.cpp's own settings agree on 6 tokens of 10.
REPETITIVE = (
    "The cat sat on the mat. " * 24,
    "one two three four five six seven eight nine ten " * 16,
    "knock knock, who is there? " * 10,
    "".join(f"Line {i}: the value is {i * i}.\n" for i in range(1, 41)),
    "".join(f"def add_{i}(x):\n    return x + {i}\n\n" for i in range(1, 31)),
)

BEGINNINGS = (
    "The",
    "Once upon a time",
    "2 + 2 =",
    "import numpy as np\n",
    "The quick brown fox jumps over the lazy",
    "Water boils at 100 degrees Celsius, and it freezes at",
    "Monday, Tuesday, Wednesday, Thursday,",
    "你好",
    "<|im_start|>user\n",
    "    \n\n\t  x",
)

LONG = (
    "\n\n".join(PROSE),
    "\n\n".join(reversed(PROSE)) + "\n\n" + "\n".join(CODE),
    answer_from((*PROSE, STEPS), "How does one find the hole in the tube of a bicycle?"),
    "\n".join((*CODE, *LISTS, *CHINESE, *PROSE[:2])),
)

PROMPTS: tuple[str, ...] = (
    *BEGINNINGS,
    *PROSE,
    *CODE,
    *LISTS,
    *CHINESE,
    *CHATS,
    *REPETITIVE,
    *LONG,
)
"""In the order of the golden file."""
