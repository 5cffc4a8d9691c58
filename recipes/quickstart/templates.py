"""The generated part of the quickstart data: question templates whose answers, right and wrong, are computed.

Each template takes a random generator and a running number that picks the wording, and gives one [`content.Row`].
The wrong answer is what a typical slip leads to: a carry too much, a last step forgotten, the largest city taken for
the capital.
"""

import json
import random
from collections.abc import Callable

from content import Row


PEOPLE = ["Amina", "Bjorn", "Carla", "Elif", "Hugo", "Kaori", "Leon", "Olga", "Pedro", "Samir", "Wanda"]

# country, capital, a larger city, where the country lies, currency
COUNTRIES = [
    ("Australia", "Canberra", "Sydney", "in Oceania", "the Australian dollar"),
    ("Brazil", "Brasília", "São Paulo", "in South America", "the real"),
    ("Switzerland", "Bern", "Zurich", "in Central Europe", "the Swiss franc"),
    ("Canada", "Ottawa", "Toronto", "in North America", "the Canadian dollar"),
    ("Ecuador", "Quito", "Guayaquil", "in South America", "the US dollar"),
    ("India", "New Delhi", "Mumbai", "in South Asia", "the Indian rupee"),
    ("Kazakhstan", "Astana", "Almaty", "in Central Asia", "the tenge"),
    ("Morocco", "Rabat", "Casablanca", "in North Africa", "the dirham"),
    ("New Zealand", "Wellington", "Auckland", "in Oceania", "the New Zealand dollar"),
    ("Nigeria", "Abuja", "Lagos", "in West Africa", "the naira"),
    ("Vietnam", "Hanoi", "Ho Chi Minh City", "in Southeast Asia", "the dong"),
    ("Turkey", "Ankara", "Istanbul", "partly in Europe and partly in Asia", "the lira"),
]

# element, symbol, atomic number, what it is good for, an element it may be taken for
ELEMENTS = [
    ("helium", "He", 2, "it fills balloons and cools the magnets of medical scanners", "hydrogen", 1),
    ("sodium", "Na", 11, "together with chlorine it makes up table salt", "nitrogen", 7),
    ("carbon", "C", 6, "it is found in coal, in diamonds and in every living cell", "calcium", 20),
    ("silicon", "Si", 14, "computer chips and most solar cells are made from it", "sulphur", 16),
    ("iron", "Fe", 26, "it is the main part of steel", "fluorine", 9),
    ("copper", "Cu", 29, "most electric cables are made from it", "cobalt", 27),
]

WORD_LISTS = [
    ("fruits", ["quince", "apricot", "mango", "cherry", "grape"]),
    ("cities", ["Oslo", "Madrid", "Vienna", "Athens", "Lisbon", "Prague"]),
    ("tools", ["saw", "hammer", "drill", "chisel", "spanner"]),
    ("rivers", ["Thames", "Danube", "Nile", "Rhine", "Amazon"]),
    ("animals", ["zebra", "badger", "otter", "beaver", "lynx", "stork"]),
]

# verb, past tense, past participle, what a learner may write
VERBS = [
    ("bring", "brought", "brought", "bringed"),
    ("swim", "swam", "swum", "swimmed"),
    ("choose", "chose", "chosen", "choosed"),
    ("sing", "sang", "sung", "singed"),
]

ORDERS = [
    ("desk lamp", "Ostend"),
    ("winter coat", "Tampere"),
    ("coffee grinder", "Porto"),
    ("school rucksack", "Leeds"),
    ("bread knife", "Aarhus"),
    ("picture frame", "Siena"),
]

PROFILES = [
    ("Mira Sandberg", "Uppsala", "nurse"),
    ("Tomas Havel", "Brno", "carpenter"),
    ("Aisha Rahman", "Bradford", "pilot"),
    ("Luca Ferri", "Bologna", "cook"),
    ("Sofia Petrou", "Patras", "gardener"),
    ("Henrik Dahl", "Bergen", "fisherman"),
]


def _row(topic: str, question: str, answer: str, right: object, wrong: object, text: str = "") -> Row:
    if str(right) == str(wrong):
        raise ValueError(f"the wrong answer to `{question}` is the right one: {right}")
    return Row(topic, question, text, answer.format(right), answer.format(wrong))


def shopping(rng: random.Random, i: int) -> Row:
    a, b, p, q, who = rng.randint(3, 9), rng.randint(2, 6), rng.randint(2, 7), rng.randint(3, 8), rng.choice(PEOPLE)
    x, y, question = [
        (
            "notebooks",
            "pens",
            f"{who} buys {a} notebooks at {p} euros each and {b} pens at {q} euros each. What is the total?",
        ),
        (
            "apples",
            "melons",
            f"At a stall, a bag of apples is {p} euros and a melon is {q} euros. "
            f"What is the bill for {a} bags of apples and {b} melons?",
        ),
        (
            "adult tickets",
            "child tickets",
            f"Entry to the zoo costs {p + 9} euros for adults and {q} euros for children. "
            f"How much do {a} adults and {b} children pay together?",
        ),
    ][i]
    p += 9 if i == 2 else 0
    answer = (
        f"The {x} come to {a} x {p} = {a * p} euros and the {y} to {b} x {q} = {b * q} euros, in total {{}} euros."
    )
    return _row("arithmetic", question, answer, a * p + b * q, a * p + b * q + 10)


def travel(rng: random.Random, i: int) -> Row:
    hours = rng.randint(2, 5)
    speed = [rng.randrange(80, 160, 20), rng.randrange(60, 90, 10), rng.randrange(16, 26, 2)][i]
    way = speed * hours
    question, answer, right, wrong = [
        (
            f"A train travels at {speed} km/h for {hours} hours and 30 minutes. How far does it get?",
            f"{hours} hours and 30 minutes are {hours}.5 hours. {speed} x {hours}.5 = {{0}}, so it covers {{0}} km.",
            way + speed // 2,
            way + 30,
        ),
        (
            f"How long does a lorry need for {way} km if it drives at a steady {speed} km/h?",
            f"{way} / {speed} = {{0}}, so the lorry needs {{0}} hours.",
            hours,
            hours + 1,
        ),
        (
            f"{rng.choice(PEOPLE)} cycled {way} km in {hours} hours. What was the average speed?",
            f"The average speed was {way} / {hours} = {{}} km/h.",
            speed,
            speed + hours,
        ),
    ][i]
    return _row("arithmetic", question, answer, right, wrong)


def sharing(rng: random.Random, i: int) -> Row:
    n, each = rng.randint(6, 9), rng.randint(6, 14)
    left = rng.randint(3, n - 1)
    total = n * each + left
    question, answer, right, wrong = [
        (
            f"{n} children share {total} marbles equally. How many does each child get, and how many are left over?",
            f"{total} / {n} gives {each} with a remainder of {{0}}: each gets {each}, and {{0}} are left over.",
            left,
            left - 1,
        ),
        (
            f"A baker packs {total} rolls into bags of {n}. How many full bags are there, and how many rolls remain?",
            f"{each} bags hold {each} x {n} = {n * each} rolls. So there are {each} full bags, and {{}} rolls remain.",
            left,
            left + 2,
        ),
        (
            f"{total} guests are to sit at tables for {n}. How many tables are needed so that everybody has a seat?",
            f"{each} tables seat only {each * n} guests, so {{}} tables are needed.",
            each + 1,
            each,
        ),
    ][i]
    return _row("arithmetic", question, answer, right, wrong)


def percent(rng: random.Random, i: int) -> Row:
    rate, base, who = rng.choice([15, 20, 25, 30]), rng.randrange(120, 400, 20), rng.choice(PEOPLE)
    part = base * rate // 100
    question, answer, right, wrong = [
        (
            f"A bicycle costs {base} euros. In the sale it is {rate} per cent cheaper. What does it cost now?",
            f"{rate} per cent of {base} euros is {part} euros, so the bicycle now costs {{}} euros.",
            base - part,
            base - rate,
        ),
        (
            f"{who}'s monthly rent of {base * 4} euros goes up by 5 per cent. What is the new rent?",
            f"5 per cent of {base * 4} is {base // 5}. The new rent is {base * 4} + {base // 5} = {{}} euros.",
            base * 4 + base // 5,
            base * 4 + base // 5 + 10,
        ),
        (
            f"{part} of the {base} seats in a theatre are taken. What percentage is that?",
            f"{part} / {base} = 0.{rate}, that is {{}} per cent.",
            rate,
            rate + 10,
        ),
    ][i]
    return _row("arithmetic", question, answer, right, wrong)


def rectangle(rng: random.Random, i: int) -> Row:
    a, b, price = rng.randint(7, 15), rng.randint(3, 6), rng.randint(12, 30)
    question, answer, right, wrong = [
        (
            f"How many metres of fence go around a rectangular garden {a} m long and {b} m wide?",
            f"The way around is 2 x ({a} + {b}) = {{0}}, so {{0}} metres of fence are needed.",
            2 * (a + b),
            2 * (a + b) + b,
        ),
        (
            f"A room is {a} m by {b} m. What does a carpet for the whole floor cost at {price} euros a square metre?",
            f"The floor measures {a} x {b} = {a * b} square metres. The carpet costs {a * b} x {price} = {{}} euros.",
            a * b * price,
            a * b * price - 20,
        ),
        (
            f"A box is {a} cm long, {b} cm wide and {b + 1} cm high. What is its volume?",
            f"The volume is {a} x {b} x {b + 1} = {{}} cubic centimetres.",
            a * b * (b + 1),
            a * b * (b + 1) + 2 * a,
        ),
    ][i]
    return _row("arithmetic", question, answer, right, wrong)


def clock(rng: random.Random, i: int) -> Row:
    start, extra = rng.randint(14, 19) * 60 + rng.choice([35, 40, 45, 50]), rng.choice([30, 35, 40])
    end = start + 60 + extra
    question, answer, right, wrong = [
        (
            f"A concert begins at {_time(start)} and takes {60 + extra} minutes. When is it over?",
            f"{60 + extra} minutes are 1 hour and {extra} minutes. One hour later it is {_time(start + 60)}, "
            f"and {extra} minutes after that {{}}.",
            _time(end),
            _time(end - 60),
        ),
        (
            f"A bus leaves at {_time(start)} and arrives at {_time(end)}. How many minutes does the ride last?",
            f"Until {_time(start + 60)} it is 60 minutes, and {extra} more until {_time(end)}: {{}} minutes.",
            60 + extra,
            80 + extra,
        ),
        (
            f"The roast has to be done at {_time(end)} and needs {60 + extra} minutes. When must it go into the oven?",
            f"One hour before {_time(end)} it is {_time(end - 60)}; {extra} minutes earlier still it is {{}}.",
            _time(start),
            _time(start + 20),
        ),
    ][i]
    return _row("arithmetic", question, answer, right, wrong)


def _time(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"


def average(rng: random.Random, i: int) -> Row:
    mean = rng.randint(14, 22)
    step, other = rng.sample(range(1, 7), 2)
    values = [mean - step, mean + other, mean + step, mean - other]
    shown = f"{values[0]}, {values[1]}, {values[2]} and {values[3]}"
    question = [
        f"At noon on four days it was {shown} degrees warm. What was the average temperature?",
        f"A team scored {shown} points in its four games. How many points is that per game?",
        f"Calculate the mean of the numbers {shown}.",
    ][i]
    answer = f"{' + '.join(map(str, values))} = {mean * 4}, and {mean * 4} / 4 = {{}}."
    return _row("arithmetic", question, answer, mean, mean + 2)


def recipe(rng: random.Random, i: int) -> Row:
    people, more, unit = rng.choice([2, 4]), rng.choice([5, 6, 7, 9]), rng.choice([60, 75, 80, 110])
    food, amount = ["rice", "flour", "potatoes"][i], people * unit
    question = [
        f"A recipe for {people} people asks for {amount} g of rice. How much rice do {more} people need?",
        f"{amount} g of flour make {people} pizzas. How many grams does a cook take for {more} pizzas?",
        f"For {people} guests I boil {amount} g of potatoes. How many grams are right for {more} guests?",
    ][i]
    one = ["person", "pizza", "guest"][i]
    answer = f"One {one} takes {amount} / {people} = {unit} g of {food}, and {more} x {unit} = {{}} g."
    return _row("arithmetic", question, answer, more * unit, more * unit + 40)


def savings(rng: random.Random, i: int) -> Row:
    weekly, weeks = rng.randint(7, 19), rng.randint(8, 16)
    price, who = weekly * weeks + rng.randint(2, weekly - 2), rng.choice(PEOPLE)
    question = [
        f"{who} saves {weekly} euros a week. When is there enough for a guitar at {price} euros?",
        f"A tent costs {price} euros. How long does {who} have to put {weekly} euros aside every week to afford it?",
        f"A debt of {price} euros is paid back at {weekly} euros a week. In which week is the last payment due?",
    ][i]
    answer = [
        f"After {weeks} weeks there are {weeks} x {weekly} = {weeks * weekly} euros, so it takes {{}} weeks.",
        f"{weeks} weeks give only {weeks * weekly} euros, {price - weeks * weekly} too few. {who} needs {{}} weeks.",
        f"{weeks} payments make {weeks * weekly} euros. The last {price - weeks * weekly} euros are due in week {{}}.",
    ][i]
    return _row("arithmetic", question, answer, weeks + 1, [weeks, weeks + 3, weeks][i])


def age(rng: random.Random, i: int) -> Row:
    young, times, years, (a, b) = rng.randint(8, 14), rng.randint(3, 5), rng.randint(4, 9), rng.sample(PEOPLE, 2)
    old = young * times
    question, answer, right, wrong = [
        (
            f"{a} is {old} years old, {times} times as old as {b}. How old will {b} be in {years} years?",
            f"{b} is now {old} / {times} = {young} years old and will be {young} + {years} = {{}}.",
            young + years,
            young + years + times,
        ),
        (
            f"{b} is {young} and {a} is {times} times that age. What will their ages add up to in {years} years?",
            f"Now they are {young} and {old}, together {young + old}. Both get {years} years older: {{}}.",
            young + old + 2 * years,
            young + old + years,
        ),
        (
            f"{a} was born in {2010 - old} and {b} {years} years later. How old did {b} turn in 2010?",
            f"{b} was born in {2010 - old + years} and turned 2010 - {2010 - old + years} = {{}}.",
            old - years,
            old + years,
        ),
    ][i]
    return _row("arithmetic", question, answer, right, wrong)


def change(rng: random.Random, i: int) -> Row:
    paid = rng.randrange(1105, 1895, 5)
    question, answer, note = [
        (
            f"{rng.choice(PEOPLE)} pays a bill of {paid / 100:.2f} euros with a 20-euro note. How much change is due?",
            f"20.00 - {paid / 100:.2f} = {{0}}, so {{0}} euros come back.",
            2000,
        ),
        (
            f"A cable 50 m long loses a piece of {paid / 100:.2f} m. What length is left?",
            f"There are 50.00 - {paid / 100:.2f} = {{}} m left.",
            5000,
        ),
        (
            f"{rng.choice(PEOPLE)} has run {paid / 100:.2f} km of a race over 21.10 km. How far is it to the finish?",
            f"It is 21.10 - {paid / 100:.2f} = {{}} km to the finish.",
            2110,
        ),
    ][i]
    return _row("arithmetic", question, answer, f"{(note - paid) / 100:.2f}", f"{(note - paid + 100) / 100:.2f}")


def units(rng: random.Random, i: int) -> Row:
    big, one, small, factor, slip = [
        ("kilometres", "kilometre", "metres", 1000, 100),
        ("hours", "hour", "minutes", 60, 100),
        ("kilograms", "kilogram", "grams", 1000, 100),
        ("weeks", "week", "hours", 168, 148),
        ("inches", "inch", "centimetres", 2.54, 2.45),
    ][i]
    count = rng.randint(3, 12)
    right, wrong = (f"{round(count * f, 2):,}".removesuffix(".0") for f in (factor, slip))
    question = [f"Convert {count} {big} to {small}.", f"How many {small} are {count} {big}?"][i % 2]
    answer = f"One {one} is {factor:,} {small}, so {count} {big} are {{}} {small}."
    return _row("arithmetic", question, answer, right, wrong)


def capital(rng: random.Random, i: int) -> Row:
    country, right, larger, place, money = COUNTRIES[i]
    question, answer = [
        (
            f"What is the capital of {country}, and which currency is used there?",
            f"The capital is {{}}, and people pay with {money}.",
        ),
        (f"Name the capital of {country} and say where the country lies.", f"{{}}; the country lies {place}."),
        (
            f"I am filling in a quiz: which city is the seat of government of {country}?",
            f"It is {{}}. By the way, the currency there is {money}.",
        ),
        (f"Is {larger} the capital of {country}?", f"{{}} The country lies {place}."),
        (f"A friend says that {country} is governed from {larger}. Is that right?", "{}"),
        (
            f"Fill in the gaps: {country} lies ..., and its capital is ...",
            f"{country} lies {place}, and its capital is {{}}.",
        ),
    ][i % 6]
    wrong = larger
    if i % 6 == 3:
        right, wrong = f"No, {larger} is larger, but the capital is {right}.", f"Yes, {larger} is the capital."
    if i % 6 == 4:
        right, wrong = (
            f"Not quite: parliament and government sit in {right}.",
            f"Yes, the government sits in {larger}.",
        )
    return _row("knowledge", question, answer, right, wrong)


def element(rng: random.Random, i: int) -> Row:
    name, symbol, number, use, other, other_number = ELEMENTS[i]
    question, answer, right, wrong = [
        (
            f"Tell me the symbol and the atomic number of {name}, and what it is good for.",
            f"{name.capitalize()} has the symbol {symbol} and the atomic number {{}}; {use}.",
            number,
            other_number,
        ),
        (f"Which chemical element has the symbol {symbol}?", f"{symbol} stands for {{}}; {use}.", name, other),
        (
            f"Which element has the atomic number {number}? Say in a few words what it is good for.",
            f"Element {number} is {{}}; {use}.",
            name,
            other,
        ),
    ][i % 3]
    return _row("knowledge", question, answer, right, wrong)


def alphabet(rng: random.Random, i: int) -> Row:
    kind, words = WORD_LISTS[i]
    right, shown = sorted(words), rng.sample(words, len(words))
    while shown == right:
        rng.shuffle(shown)
    wrong = [right[0], right[2], right[1], *right[3:]]
    question = [
        f"Sort these {kind} alphabetically.",
        f"Put the names of the {kind} in order from A to Z.",
        f"In which order would an index list these {kind}?",
    ][i % 3]
    return _row("language", question, "{}", ", ".join(right), ", ".join(wrong), ", ".join(shown))


def verb(rng: random.Random, i: int) -> Row:
    base, past, participle, slip = VERBS[i]
    question, answer = [
        (
            f'Give the past tense and the past participle of "{base}".',
            f"Past tense: {{}}\nPast participle: {participle}",
        ),
        (
            f'A pupil writes "I {slip}". What would be correct?',
            f'Correct is "I {{}}", and in the present perfect "I have {participle}".',
        ),
    ][i % 2]
    return _row("language", question, answer, past, [slip, participle][i % 2])


def order(rng: random.Random, i: int) -> Row:
    item, town = ORDERS[i]
    who, day, price = rng.choice(PEOPLE), rng.randint(2, 28), rng.randint(18, 140)
    month = rng.choice(["January", "March", "May", "August", "October"])
    question, answer = [
        (
            "Extract the customer, the product and the price from the message.",
            f"Customer: {who}\nProduct: {item}\nPrice: {{}} euros",
        ),
        ("What was bought, and what did it cost?", f"A {item} was bought for {{}} euros."),
        ("Find the amount of money and the town in the note.", f"Amount: {{}} euros\nTown: {town}"),
    ][i % 3]
    message = [
        f"{who} from {town} ordered a {item} for {price} euros on {day} {month}.",
        f"On {day} {month} a {item} went out to {who} in {town}; {price} euros were paid by card.",
        f"Parcel for {town}: one {item}, {price} euros, paid by {who} on {day} {month}.",
    ][i // 2]
    return _row("extraction", question, answer, price, price + day, message)


def as_json(rng: random.Random, i: int) -> Row:
    (name, town, job), years = PROFILES[i], rng.randint(24, 61)
    question, keys = [
        ("Turn the sentence into JSON with the keys name, age and city.", ("name", "age", "city")),
        ("Give the profession and the home town of the person as a JSON object.", ("profession", "city")),
    ][i % 2]
    sentence = [
        f"{name}, {years} years old, lives in {town} and works as a {job}.",
        f"The {job} {name} was born {years} years ago in a village and moved to {town} as a child.",
        f"In {town} everybody knows {name} ({years}), the {job} with the loud laugh.",
    ][i % 3]
    facts = {"name": name, "age": years, "city": town, "profession": job}
    other = dict(facts, city=PROFILES[(i + 1) % 6][1])
    right, wrong = (json.dumps({key: values[key] for key in keys}, ensure_ascii=False) for values in (facts, other))
    return _row("extraction", question, "{}", right, wrong, sentence)


# template and how many rows it gives
TEMPLATES: list[tuple[Callable[[random.Random, int], Row], int]] = [
    (shopping, 3),
    (travel, 3),
    (sharing, 3),
    (percent, 3),
    (rectangle, 3),
    (clock, 3),
    (average, 3),
    (recipe, 3),
    (savings, 3),
    (age, 3),
    (change, 3),
    (units, 5),
    (capital, len(COUNTRIES)),
    (element, len(ELEMENTS)),
    (alphabet, len(WORD_LISTS)),
    (verb, len(VERBS)),
    (order, len(ORDERS)),
    (as_json, len(PROFILES)),
]


def generate(rng: random.Random) -> list[Row]:
    """
    Fills every template.

    Args:
        rng (`random.Random`):
            Chooses names and numbers.

    Returns:
        `list[Row]`: the rows, template after template.
    """
    return [template(rng, i) for template, count in TEMPLATES for i in range(count)]
