"""The hand-written part of the quickstart data: questions with right answers, and what would make some of them wrong.

The text below is read by [`parse`]. A topic starts with `#`, a row with `Q:` (instruction), then an optional `I:`
(input), `A:` (output) and any number of `W: right => wrong` lines, which turn the right answer into a plausible but
false one. An indented line goes on with the line above; after `   |` it starts a new line of the text instead.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """
    One clean question with its right answer.

    Args:
        topic (`str`):
            What kind of task it is; the held-out rows are spread over the same topics.
        instruction (`str`):
            The question.
        input (`str`):
            The text that the question is about, or an empty string.
        output (`str`):
            The right answer.
        wrong (`str`, *optional*):
            A plausible but false answer. Rows without one are never made wrong.
    """

    topic: str
    instruction: str
    input: str
    output: str
    wrong: str | None = None


def parse(text: str) -> list[Row]:
    """
    Reads rows written in the notation of this module.

    Args:
        text (`str`):
            Rows under topics, see the module docstring.

    Returns:
        `list[Row]`: the rows in the order of the text.

    Raises:
        `ValueError`: if the left side of a `W:` line does not occur exactly once in the answer.
    """
    topic, found = None, []
    for line in text.splitlines():
        if line.startswith("# "):
            topic = line[2:]
        elif line[:3] in ("Q: ", "I: ", "A: ", "W: "):
            if line[0] == "Q":
                found.append((topic, []))
            found[-1][1].append([line[0], line[3:]])
        elif line.startswith("   |"):
            found[-1][1][-1][1] += "\n" + line[5:]
        elif line.strip():
            found[-1][1][-1][1] += " " + line.strip()
    return [_row(topic, fields) for topic, fields in found]


def _row(topic: str, fields: list[list[str]]) -> Row:
    one = dict(fields)
    wrong = one["A"]
    for right, false in (value.split(" => ", 1) for key, value in fields if key == "W"):
        if wrong.count(right) != 1:
            raise ValueError(f"`W: {right}` has to occur exactly once in the answer to `{one['Q']}`")
        wrong = wrong.replace(right, false)
    return Row(topic, one["Q"], one.get("I", ""), one["A"], wrong if wrong != one["A"] else None)


HAND_WRITTEN = r"""
# explanation

Q: Explain why the sky looks blue during the day.
A: Air molecules scatter short wavelengths of sunlight far more than long ones. Blue light therefore reaches our
   eyes from every direction, while red light mostly travels straight on.
W: short wavelengths of sunlight far more than long ones => long wavelengths of sunlight far more than short ones

Q: Why does ice float on water?
A: Water molecules form an open lattice when they freeze, so ice takes up about nine per cent more space than the
   same mass of liquid. Because it is less dense, it floats.
W: about nine per cent more space => about nine per cent less space
W: Because it is less dense, it floats => Because it is lighter when cold, it floats

Q: What causes the seasons on Earth?
A: The Earth's axis is tilted by about 23.4 degrees. For half of the year the northern half leans towards the Sun
   and gets longer days and steeper light; six months later it leans away.
W: The Earth's axis is tilted by about 23.4 degrees. For half of the year the northern half leans towards the Sun
   and gets longer days and steeper light; six months later it leans away. => The Earth's distance from the Sun
   changes strongly during the year. In summer the planet is close to the Sun and receives more heat; six months
   later it is far away, and winter comes.

Q: How does a vaccine protect a person from disease?
A: A vaccine shows the immune system a harmless part or a weakened form of a germ. The body makes antibodies and
   memory cells, so that it can react quickly when the real germ arrives.

Q: Why do onions make people cry?
A: Cutting an onion breaks its cells and releases enzymes that form a gas containing sulphur. The gas reaches the
   eyes, turns into a mild acid in the tears, and the eyes water to rinse it away.
W: a gas containing sulphur => a gas containing chlorine
W: a mild acid => a strong salt

Q: Explain inflation to a twelve-year-old.
A: Inflation means that prices rise over time, so the same money buys less. If an ice cream cost two euros last
   year and costs two euros twenty now, its price went up by ten per cent.
W: by ten per cent => by twenty per cent

Q: What is photosynthesis?
A: Photosynthesis is the way plants make their food. With the energy of sunlight they turn water and carbon dioxide
   into sugar, and they give off oxygen as a by-product.
W: water and carbon dioxide into sugar, and they give off oxygen => water and oxygen into sugar, and they give off
   carbon dioxide

Q: Why do we have leap years?
A: The Earth needs about 365.24 days to travel around the Sun. One extra day roughly every four years keeps the
   calendar in step with the seasons.
W: 365.24 days => 364.75 days

Q: How does a microwave oven heat food?
A: It sends out microwaves whose electric field changes direction billions of times a second. Water molecules in
   the food try to follow the field, and their motion becomes heat.

Q: Explain what an interest rate is.
A: An interest rate is the price of borrowing money, given as a share of the sum for a certain time. At 5 % a year,
   a loan of 1,000 euros costs 50 euros in the first year.
W: costs 50 euros => costs 5 euros

Q: Why does bread rise?
A: Yeast eats the sugars in the dough and gives off carbon dioxide. The gas is trapped by the elastic gluten, and
   the dough swells like a balloon with many small rooms.
W: gives off carbon dioxide => gives off pure oxygen

Q: What does it mean when a medicine is called a placebo?
A: A placebo looks like a medicine but contains no active substance. Researchers give it to one group of patients
   so that they can tell the real effect of a drug from the effect of expecting help.

Q: Explain the difference between a virus in biology and a computer virus in one short paragraph.
A: Both copy themselves with the help of a host. A biological virus is a tiny particle that uses living cells to
   multiply, while a computer virus is a piece of code that spreads by attaching itself to other programs.

Q: Why do metals feel colder than wood at the same temperature?
A: Metals conduct heat well, so they carry warmth away from the skin quickly. Wood conducts heat poorly and lets
   the skin stay warm. The thermometer would show the same value for both.
W: Metals conduct heat well => Metals store less heat than wood
W: The thermometer would show the same value for both. => A thermometer would show a lower value for the metal.

Q: What is a black hole?
A: A black hole is a region of space where gravity is so strong that not even light can leave it. Many form when a
   very heavy star runs out of fuel and its core collapses.

Q: Explain how noise-cancelling headphones work.
A: Small microphones pick up the noise around the listener. The electronics play a copy of that sound with its
   peaks and valleys swapped, so that the two waves cancel each other out.

Q: Why do cats purr?
A: Cats purr by moving the muscles of the larynx very quickly while breathing in and out. They often do it when
   content, but also when injured or stressed, perhaps because it calms them.

Q: What is the greenhouse effect?
A: Sunlight warms the ground, which sends heat back as infrared radiation. Gases such as carbon dioxide and water
   vapour absorb part of this heat and return it, so the surface stays warmer than it would be otherwise.

Q: How do tides come about?
A: The Moon's gravity pulls more strongly on the near side of the Earth than on the far side. This stretches the
   oceans into two bulges, and as the Earth turns, most coasts pass through both of them every day.
W: The Moon's gravity => The wind
W: This stretches the oceans into two bulges => This pushes the oceans into one bulge
W: pass through both of them every day => pass through it once a week

Q: Explain in simple words what an algorithm is.
A: An algorithm is a list of clear steps that solves a problem. A cake recipe is one: if you follow the steps in
   order, you get the same cake each time.

Q: Why does a compass point north?
A: The Earth behaves like a large magnet. A compass needle is a small magnet that turns freely, so it lines up with
   the Earth's magnetic field, which runs roughly from south to north.

Q: What is opportunity cost?
A: Opportunity cost is the value of the best alternative that you give up. If you spend an evening at the cinema
   instead of working for 40 euros, the evening costs you the ticket plus those 40 euros.

Q: Why do leaves turn yellow in autumn?
A: When days get shorter, trees stop making green chlorophyll and take back its valuable parts. The yellow pigments
   that were there all summer then become visible.

Q: Explain why salt is spread on icy roads.
A: Salt dissolves in the thin film of water on the ice and lowers its freezing point. The ice then melts even
   though the air is a few degrees below zero. In very hard frost the effect is too weak.
W: lowers its freezing point => raises its freezing point

Q: What does the immune system do during a fever?
A: The body raises its temperature on purpose. Many germs multiply more slowly in the heat, and some immune cells
   work faster, so a moderate fever can help the defence.

Q: Why can we see ourselves in a mirror but not in a sheet of paper?
A: A mirror is smooth, so it sends each ray of light back in one definite direction and the picture stays intact.
   Paper is rough and scatters the light in all directions.

Q: How does a refrigerator keep food cold?
A: A liquid evaporates inside thin pipes and takes up heat from the food. A compressor then squeezes the vapour,
   which becomes liquid again and gives the heat to the kitchen air at the back.
W: A liquid evaporates inside thin pipes and takes up heat => A fan blows fresh cold air inside and removes heat

Q: Explain what a budget deficit is.
A: A budget deficit arises when a government spends more in a year than it takes in. It covers the gap by
   borrowing, which adds to the public debt.

Q: Why do stars twinkle while planets mostly do not?
A: Stars are so far away that they look like single points, and moving air bends their light back and forth.
   Planets look like small discs, and the flicker of the many points on a disc averages out.

Q: What is biodiversity, and why does it matter?
A: Biodiversity is the variety of living things in a place. Rich ecosystems recover better from drought or disease,
   because when one species fails, another can take over its role.

Q: Explain what happens when we hiccup.
A: The diaphragm, the muscle under the lungs, contracts suddenly and pulls in air. A moment later the vocal cords
   snap shut, and that makes the typical sound.

Q: How does a rainbow form?
A: Sunlight enters raindrops, is reflected at their back and leaves again. Because each colour is bent by a
   slightly different angle, the white light fans out into a band from red to violet.
W: from red to violet => from green to black

Q: Why is it important to test software?
A: Tests show mistakes before users meet them, when they are still cheap to repair. They also let programmers
   change old code without fear, because a broken promise is noticed at once.

Q: What is a supply chain?
A: A supply chain is the series of steps that bring a product to its buyer: raw materials, parts, assembly,
   storage, transport and sale. A delay at one step can hold up all the later ones.

Q: Why do boats made of steel not sink?
A: A ship is mostly filled with air, so as a whole it is lighter than the water it would push aside if it went
   under. The water presses it up until both weights are equal.

Q: Explain recursion to a beginner in programming.
A: Recursion means that a function calls itself on a smaller version of the same problem. It needs a simplest case
   that is answered directly, otherwise it would never stop.
W: It needs a simplest case that is answered directly, otherwise it would never stop. => It always stops by itself,
   so no simplest case is needed.

Q: Why do mosquitoes bite people?
A: Only female mosquitoes bite. They need the proteins in blood to make their eggs; for energy both sexes drink
   nectar and other plant juices.
W: Only female mosquitoes bite. => Only male mosquitoes bite.
W: to make their eggs => to grow their wings

Q: What is the purpose of a constitution?
A: A constitution sets out how a state is governed, who may make and judge the laws, and which rights every person
   has. Ordinary laws must not contradict it.

Q: How does soap remove grease?
A: One end of a soap molecule likes water and the other likes fat. Many molecules surround a drop of grease with
   the water-loving ends outwards, so that it can be rinsed away.

Q: Why does the Moon show different shapes during a month?
A: Half of the Moon is always lit by the Sun. As the Moon moves around the Earth, we see a changing part of the lit
   half, from new moon to full moon and back.
W: As the Moon moves around the Earth, we see a changing part of the lit half => As the Earth's shadow moves over
   the Moon, it hides a changing part of it

Q: Erkläre in zwei Sätzen, warum Brot beim Backen aufgeht.
A: Die Hefe vergärt Zucker und bildet dabei Kohlendioxid. Das Gas sammelt sich in kleinen Blasen, die der
   elastische Teig festhält, und so wird das Brot locker.

Q: Explique por que as folhas mudam de cor no outono.
A: No outono, as árvores deixam de produzir clorofila, o pigmento verde. Assim aparecem os tons amarelos e
   alaranjados que já estavam nas folhas.

Q: Why do our ears pop in an aeroplane?
A: During climb and descent the pressure in the cabin changes faster than the pressure behind the eardrum.
   Swallowing or yawning opens a small tube to the throat, and the two pressures become equal with a pop.

Q: What is a control group in an experiment?
A: A control group is treated like the others except for the one thing under test. Comparing the groups shows
   whether that thing really makes a difference.

# how_to

Q: How do I remove a red wine stain from a tablecloth?
A: Dab the stain with a clean cloth without rubbing. Cover it with salt or pour on sparkling water, wait a few
   minutes, and then wash the cloth as usual.

Q: Describe how to change a bicycle tube.
A: Take the wheel out and lift one side of the tyre over the rim with levers. Pull out the old tube, check the tyre
   for sharp objects, put in the new tube slightly inflated, press the tyre back and pump it up.

Q: Give instructions for making a cup of green tea.
A: Heat the water to about 75 degrees, because boiling water makes green tea bitter. Pour it over one teaspoon of
   leaves, let it steep for two minutes, and remove the leaves.

Q: How can I memorise the names of new colleagues?
A: Repeat each name aloud when you hear it, link it to something you see in the face, and write the names down with
   a short note the same evening.

Q: Explain how to boil an egg so that the yolk stays soft.
A: Put the egg into boiling water and let it cook for about five to six minutes. Then hold it under cold water,
   which stops the cooking.
W: for about five to six minutes => for about fifteen to sixteen minutes

Q: How do I back up photos from my phone?
A: Connect the phone to a computer by cable, open its photo folder and copy the pictures to an external disk. Check
   that a few of them open before you delete anything from the phone.

Q: Tell me how to prepare for a written exam in one week.
A: Split the material into five parts and study one part a day. Use the sixth day for old exam papers, and on the
   last day only repeat your weak points and sleep well.

Q: How do I unclog a sink without chemicals?
A: Pour a kettle of hot water down the drain, then cover the overflow and work a plunger up and down. If that
   fails, place a bucket underneath and clean the trap.

Q: Describe how to plant a young tree.
A: Dig a hole twice as wide as the root ball and just as deep. Set the tree in straight, fill up with loose soil,
   tread it down gently, water it well and tie it to a stake.
W: twice as wide as the root ball and just as deep => just as wide as the root ball and three times as deep

Q: How should I store potatoes so that they keep for long?
A: Keep them dark, dry and cool, at about 5 to 10 degrees, and not next to onions. Light makes them green and
   bitter.
W: Keep them dark, dry and cool => Keep them bright, moist and warm
W: at about 5 to 10 degrees, and not next to onions. Light makes them green and bitter. => at about 20 to 25
   degrees, and next to onions. Light keeps them fresh and sweet.

Q: Explain how to write a good subject line for an e-mail.
A: Name the matter and what you want in at most eight words, for example "Budget 2025: please approve by Friday".
   Leave out greetings and words such as "urgent" unless they are true.

Q: How can I fall asleep faster?
A: Go to bed at the same time every day, put screens away an hour earlier, and keep the room cool and dark. If your
   thoughts circle, write them on a list for tomorrow.

Q: How do you measure the height of a tree without climbing it?
A: Push a one-metre stick upright into the ground and measure its shadow and the shadow of the tree. The height in
   metres is the tree's shadow divided by the stick's shadow.
W: the tree's shadow divided by the stick's shadow => the stick's shadow divided by the tree's shadow

Q: Give step-by-step advice for a first public talk.
A: 1. Write down the one thing people should remember.
   | 2. Build three points around it.
   | 3. Practise aloud with a clock.
   | 4. Start slowly and look at friendly faces.

Q: How do I find out whether an e-mail is a phishing attempt?
A: Look at the real address of the sender, hover over links to see where they lead, and be wary of threats and time
   pressure. If in doubt, open the company's site yourself instead of clicking.

Q: Describe how to iron a shirt.
A: Start with the collar, then the cuffs and sleeves, and do the back and the front last. Iron while the cloth is
   slightly damp, and hang the shirt up at once.

Q: How can a family reduce food waste?
A: Plan meals for the week, shop with a list, and put older food at the front of the fridge. Leftovers can be
   frozen or turned into soup.

Q: How do I set a table for a simple dinner?
A: Place the fork to the left of the plate and the knife to the right with its blade facing the plate. The glass
   stands above the knife, and the napkin lies on the plate or beside the fork.
W: Place the fork to the left of the plate and the knife to the right => Place the fork to the right of the plate
   and the knife to the left

Q: What is the best way to remove a tick?
A: Grip the tick with fine tweezers as close to the skin as you can and pull it out slowly and straight. Disinfect
   the spot and watch it for some weeks; see a doctor if a red ring appears.
W: Grip the tick with fine tweezers as close to the skin as you can and pull it out slowly and straight. => Cover
   the tick with oil or nail varnish and wait for an hour until it lets go.

Q: How do I make a strong password that I can remember?
A: String together four or five random words that have nothing to do with you and make up a picture for them. Use
   it for one account only, and let a password manager keep the rest.

Q: Explain how to read a bus timetable.
A: Find your stop, choose the column for the right kind of day, and run down to the next departure. The minutes
   after it show how long the bus needs to the later stops.

Q: How do I repot a houseplant?
A: Choose a pot about two centimetres wider, put some fresh soil in, loosen the old roots gently and set the plant
   at the same depth as before. Fill up, press lightly and water.

Q: How can I calm down before an important meeting?
A: Breathe in for four seconds and out for six, for about two minutes. Then read your first two sentences aloud; a
   secure start makes the rest easier.

Q: How do I keep cut flowers fresh for longer?
A: Cut the stems at an angle, take off leaves that would be under water, and change the water every two days. Keep
   the vase away from sun and ripe fruit.

Q: Tell me how to clean a computer keyboard.
A: Switch it off or unplug it, turn it over and shake out the crumbs. Blow between the keys with compressed air,
   and wipe them with a slightly damp cloth.

# comparison

Q: Compare tea and coffee in two sentences.
A: A cup of coffee usually contains about twice as much caffeine as a cup of black tea, so it wakes people up more
   strongly. Tea has a milder taste and comes in more varieties.
W: contains about twice as much caffeine => contains about half as much caffeine
W: so it wakes people up more strongly => so it wakes people up less strongly

Q: What is the difference between weather and climate?
A: Weather is what the air does at one place today or this week. Climate is the average of the weather over
   decades, usually thirty years.
W: Weather is what the air does at one place today or this week. Climate is the average of the weather over
   decades, usually thirty years. => Climate is what the air does at one place today or this week. Weather is the
   average of the climate over decades, usually thirty years.

Q: Compare renting and buying a flat.
A: Renting keeps you flexible and needs little money at the start, but the payments build no wealth. Buying ties up
   savings and time, yet in the end you own the flat and can change it as you like.

Q: How do alligators differ from crocodiles?
A: Alligators have a broad, rounded snout and live mostly in fresh water. Crocodiles have a narrower, pointed
   snout, and their lower teeth stay visible when the mouth is shut.

Q: Explain the difference between RAM and a hard drive.
A: RAM is fast memory that holds what the computer is working on and is empty after switching off. A hard drive is
   slower, but it keeps files permanently.
W: RAM is fast memory that holds what the computer is working on and is empty after switching off. A hard drive is
   slower, but it keeps files permanently. => RAM is slow memory that keeps files permanently. A hard drive is
   faster, but it is empty after switching off.

Q: Which is better for the environment on a trip of 500 km, train or plane, and why?
A: The train. An electric train causes only a fraction of the greenhouse gases of a plane for each passenger, and
   it also arrives in the middle of the city.

Q: What distinguishes a comet from an asteroid?
A: A comet is made largely of ice and dust and grows a glowing tail near the Sun. An asteroid consists of rock or
   metal and normally has no tail.
W: is made largely of ice and dust => is made largely of rock or metal
W: consists of rock or metal => consists of ice and dust

Q: Compare paper books with e-books.
A: Paper books need no battery and are pleasant to hold and lend. E-books weigh nothing extra, can be searched, and
   let the reader change the size of the letters.

Q: What is the difference between a simile and a metaphor?
A: A simile compares two things with "like" or "as", for example "as brave as a lion". A metaphor says that one
   thing is another: "he is a lion in battle".
W: A simile compares => A metaphor compares
W: A metaphor says => A simile says

Q: How does a debit card differ from a credit card?
A: A debit card takes the money from your bank account at once. With a credit card the bank lends you the sum, and
   you pay it back later, often with interest if you wait too long.

Q: Compare cotton and polyester for sports clothes.
A: Cotton is soft but soaks up sweat and dries slowly. Polyester carries moisture away and dries quickly, though it
   keeps smells longer.
W: Cotton is soft but soaks up sweat and dries slowly. Polyester carries moisture away and dries quickly =>
   Polyester is soft but soaks up sweat and dries slowly. Cotton carries moisture away and dries quickly

Q: What is the difference between a lake and a pond?
A: There is no strict border, but a lake is larger and so deep that no light reaches its floor in the middle. A
   pond is small and shallow enough for plants to root everywhere.

Q: Compare a list and a dictionary in Python.
A: A list keeps items in order and is read by position, such as `items[0]`. A dictionary stores values under keys,
   such as `ages["Ann"]`, and finds a key without searching from the start.

Q: Which is heavier, a litre of oil or a litre of water?
A: A litre of water. It weighs about 1 kg, while a litre of cooking oil weighs only about 0.92 kg, which is why oil
   floats on top.
W: A litre of water. It weighs about 1 kg, while a litre of cooking oil weighs only about 0.92 kg, which is why oil
   floats on top. => A litre of oil. It weighs about 1.2 kg, while a litre of water weighs only about 1 kg, which
   is why oil is called thick.

Q: How do baking soda and baking powder differ?
A: Baking soda needs something sour in the dough, such as buttermilk, to form gas. Baking powder already contains
   an acid and only needs moisture and heat.

Q: Compare bicycles and electric scooters for getting to work.
A: A bicycle is cheaper to run and trains the body, and it manages longer distances. An electric scooter saves
   effort and folds up for the train, but its battery limits the range.

Q: What is the difference between a democracy and a monarchy?
A: In a democracy the people choose those who govern. In a monarchy the head of state inherits the office, although
   in a constitutional monarchy a parliament elected by the people makes the laws.

Q: How do frogs differ from toads?
A: Frogs usually have smooth, moist skin and long legs made for jumping. Toads have dry, warty skin and shorter
   legs, and they tend to walk.

Q: Compare morning and evening exercise.
A: Exercise in the morning is rarely disturbed by other plans and starts the day with energy. In the evening the
   muscles are warmer and often stronger, but hard training right before bed can delay sleep.

Q: What is the difference between a patent and a copyright?
A: A patent protects a technical invention and has to be applied for. A copyright protects works such as texts,
   music and pictures and arises by itself when the work is created.
W: A patent protects a technical invention => A copyright protects a technical invention
W: A copyright protects works => A patent protects works

Q: Compare butter and olive oil for frying.
A: Olive oil stands higher heat and is rich in unsaturated fats. Butter adds a nutty taste, yet it burns earlier,
   so it suits gentle frying.

Q: ¿Cuál es la diferencia entre un pueblo y una ciudad?
A: Un pueblo es una población pequeña con pocos servicios, mientras que una ciudad tiene muchos más habitantes,
   empresas, hospitales y transporte público.

Q: Compare solar panels and wind turbines as sources of electricity.
A: Solar panels fit on roofs and make no noise, but they rest at night. Wind turbines also work in the dark and in
   winter, but they need open space and steady wind.

# list

Q: List five things to check before a long car journey.
A: 1. Tyre pressure and tread
   | 2. Oil and coolant levels
   | 3. Lights and indicators
   | 4. Warning triangle and first-aid kit
   | 5. Fuel or battery charge

Q: Name four planets of the solar system that have rings.
A: Jupiter, Saturn, Uranus and Neptune.
W: Jupiter, Saturn, Uranus and Neptune. => Mars, Venus, Saturn and Mercury.

Q: Give three polite ways to end a telephone call.
A: - "Thank you for your time; I will not keep you any longer."
   | - "I have to go now, but it was good to talk to you."
   | - "Let us speak again next week. Goodbye!"

Q: Suggest five cheap dinners for students.
A: Pasta with tomato sauce, vegetable fried rice, lentil soup, baked potatoes with cheese, and chickpea curry.

Q: What are the three states of matter met in everyday life?
A: Solid, liquid and gas.

Q: List four advantages of working from home.
A: - No time lost on the way to work
   | - Fewer interruptions during quiet tasks
   | - More freedom in planning the day
   | - Lower costs for travel and meals

Q: Name six tools that belong in a basic toolbox.
A: Hammer, screwdriver set, pliers, adjustable spanner, tape measure and spirit level.

Q: Give me three questions that I can ask at the end of a job interview.
A: 1. What would my first three months look like?
   | 2. How does the team decide what to work on?
   | 3. What do people here like best about their job?

Q: List the seven colours of the rainbow in order, starting with red.
A: Red, orange, yellow, green, blue, indigo and violet.
W: orange, yellow, green, blue => green, yellow, blue, orange

Q: Name three herbs that grow well on a windowsill.
A: Basil, chives and mint grow well there as long as they get light and regular water.

Q: What are common signs that a plant gets too much water?
A: Yellow leaves, soft brown stems, a musty smell from the soil, and small flies around the pot.

Q: Give five ideas for a rainy afternoon with children.
A: Build a den out of blankets, bake biscuits, hold a board-game tournament, paint with water colours, or stage a
   puppet show with old socks.

Q: Name four ways to save electricity at home.
A: 1. Switch appliances off instead of leaving them on standby.
   | 2. Use LED lamps.
   | 3. Wash at 30 degrees with a full drum.
   | 4. Cook with the lid on the pot.

Q: What should a first-aid kit contain?
A: Plasters, sterile dressings, bandages, adhesive tape, scissors, tweezers, disposable gloves, a rescue blanket
   and a leaflet with instructions.

Q: Suggest four names for a neighbourhood bakery.
A: Crumb & Corner, The Morning Loaf, Golden Crust, and Flour Street Bakery.

Q: List the four main parts of a flower and what each does.
A: - Sepals protect the bud.
   | - Petals attract insects.
   | - Stamens produce pollen.
   | - The pistil receives pollen and forms the seeds.
W: Petals attract insects.
   | - Stamens produce pollen. => Petals produce pollen.
   | - Stamens attract insects.

Q: Give three examples of renewable energy.
A: Wind power, solar power and hydropower.
W: Wind power, solar power and hydropower. => Coal power, natural gas and diesel power.

Q: What are four qualities of a good team leader?
A: A good team leader listens, decides in time, explains the reasons, and takes responsibility when something goes
   wrong.

Q: List three reasons to learn a second language.
A: It opens the door to more jobs, it lets you meet people on their own ground, and it trains memory and attention.

Q: Name five musical instruments that are played with a bow.
A: Violin, viola, cello, double bass and erhu.

Q: Suggest three healthy snacks for the office.
A: A handful of nuts, carrot sticks with hummus, or plain yoghurt with berries.

Q: Name the eight countries that border Austria.
A: Germany, the Czech Republic, Slovakia, Hungary, Slovenia, Italy, Switzerland and Liechtenstein.

Q: Enumera cuatro frutas que suelen crecer en clima tropical.
A: Mango, papaya, piña y guayaba.

Q: Donne trois conseils pour mieux dormir.
A: 1. Couche-toi à la même heure chaque soir.
   | 2. Évite les écrans pendant l'heure qui précède le coucher.
   | 3. Garde la chambre fraîche et sombre.

Q: List four questions to ask before adopting a dog.
A: - Who walks the dog on busy days?
   | - Is the landlord in favour?
   | - What do food, insurance and the vet cost?
   | - Who looks after it during holidays?

Q: Name the three longest rivers of Africa.
A: The Nile, the Congo and the Niger.
W: The Nile, the Congo and the Niger. => The Zambezi, the Orange and the Senegal.

# rewriting

Q: Rewrite the sentence in the passive voice.
I: The gardener waters the roses every evening.
A: The roses are watered by the gardener every evening.

Q: Make this message more polite.
I: Send me the report today.
A: Could you please send me the report by the end of today? Thank you very much.

Q: Correct the grammar of the sentence.
I: She don't like coffee, but her brother like it a lot.
A: She doesn't like coffee, but her brother likes it a lot.

Q: Rewrite the sentence so that it is easy to understand for a child.
I: The precipitation forecast indicates a high probability of rainfall in the afternoon.
A: It will probably rain this afternoon.

Q: Shorten the text to at most ten words.
I: Due to the fact that the lift is currently out of order, all visitors are kindly asked to make use of the
   stairs.
A: The lift is broken; please use the stairs.

Q: Turn the statement into a question.
I: The museum is open on public holidays.
A: Is the museum open on public holidays?

Q: Rewrite the text in the past tense.
I: Lena opens the door and sees a small dog on the step. It wags its tail and runs inside.
A: Lena opened the door and saw a small dog on the step. It wagged its tail and ran inside.

Q: Remove the repetition from this sentence.
I: The final end result of the test was completely and totally positive.
A: The result of the test was positive.

Q: Change the tone from casual to formal.
I: Hey, just checking if you guys got my application?
A: Dear Sir or Madam, I am writing to ask whether you have received my application. I look forward to your reply.

Q: Join the two sentences with a suitable conjunction.
I: It was raining hard. We went for a walk.
A: Although it was raining hard, we went for a walk.
W: Although it was raining hard => Because it was raining hard

Q: Rewrite the sentence from the point of view of the cat.
I: The girl filled the bowl with milk and called the cat.
A: The girl filled my bowl with milk and called me.

Q: Replace the underlined word, marked with underscores, by a stronger one.
I: The view from the tower was _nice_.
A: The view from the tower was breathtaking.

Q: Turn the notes into a full sentence.
I: meeting moved, Thursday 3 pm, room 12, bring figures
A: The meeting has been moved to Thursday at 3 pm in room 12; please bring your figures.
W: Thursday at 3 pm => Tuesday at 3 pm

Q: Rewrite the headline so that it states the fact without exaggeration.
I: Shocking! This one trick destroys your phone battery overnight!
A: Charging a phone in great heat overnight can shorten the life of its battery.

Q: Put the sentence into indirect speech.
I: Tom said, "I am too tired to cook."
A: Tom said that he was too tired to cook.

Q: Correct the spelling mistakes.
I: We recieved you're letter definately to late to answer.
A: We received your letter definitely too late to answer.

Q: Rewrite this instruction as three numbered steps.
I: Before you call support, restart the router, wait two minutes and check whether the light turns green.
A: 1. Restart the router.
   | 2. Wait two minutes.
   | 3. Check whether the light turns green. If it does not, call support.

Q: Make the sentence gender-neutral.
I: Every nurse should bring her own badge.
A: All nurses should bring their own badges.

Q: Rewrite the sentence without the word "very".
I: The soup was very hot and the room was very small.
A: The soup was scalding and the room was tiny.

Q: Rewrite the product text in a friendlier tone.
I: Returns are only accepted within 30 days. The receipt is mandatory.
A: Changed your mind? No problem: bring the item back within 30 days together with your receipt, and we will gladly
   take it.
W: within 30 days => within 60 days

Q: Rewrite the sentence in the active voice.
I: The window was broken by a football.
A: A football broke the window.

Q: Make this paragraph clearer by splitting the long sentence.
I: The museum, which was founded in 1902 and whose collection, mostly of maps, grew quickly, moved in 1950 to the
   old station.
A: The museum was founded in 1902. Its collection, mostly of maps, grew quickly. In 1950 it moved to the old
   station.
W: In 1950 it moved to the old station. => In 1902 it moved out of the old station.

Q: Rewrite the refusal so that it offers an alternative.
I: We cannot deliver on Saturday.
A: We do not deliver on Saturdays, but we would be happy to bring your order on Friday evening or Monday morning.

Q: Rewrite the sentence in American English spelling.
I: The neighbour's favourite colour is grey.
A: The neighbor's favorite color is gray.

Q: Reword the warning so that it says what to do instead.
I: Do not pour fat into the sink.
A: Let used fat cool, collect it in a jar and put the jar in the household waste.

Q: Turn this complaint into a constructive request.
I: Nobody ever tells me anything in this team!
A: I would like to be kept up to date. Could we share the most important news in a short weekly message?

# classification

Q: Is the review positive, negative or mixed? Give a one-sentence reason.
I: The battery lasts two days, but the screen scratches as soon as you look at it.
A: Mixed: the reviewer praises the battery and criticises the screen.

Q: Classify the sentiment of the comment as positive or negative.
I: I have ordered here five times and every parcel came a day early. Wonderful!
A: Positive

Q: Decide whether the sentence is a fact or an opinion, and say why.
I: Lisbon is the most beautiful capital in Europe.
A: Opinion. Beauty cannot be measured, so the claim expresses the taste of the speaker.
W: Opinion. Beauty cannot be measured, so the claim expresses the taste of the speaker. => Fact. Lisbon has been
   measured to be the most beautiful capital in Europe.

Q: To which department should this e-mail go: billing, technical support or sales?
I: I was charged twice for my subscription in March. Please refund one payment.
A: Billing, because the customer asks for the refund of a double charge.
W: Billing, because the customer asks for the refund of a double charge. => Technical support, because the customer
   has a problem with the software.

Q: Sort the animals into mammals, birds and reptiles.
I: penguin, dolphin, gecko, bat, ostrich, crocodile
A: Mammals: dolphin, bat
   | Birds: penguin, ostrich
   | Reptiles: gecko, crocodile
W: Mammals: dolphin, bat
   | Birds: penguin, ostrich => Mammals: dolphin, penguin
   | Birds: bat, ostrich

Q: Which of the words does not belong with the others? Explain.
I: violin, cello, trumpet, harp
A: The trumpet does not belong: it is a brass instrument, while the other three have strings.
W: The trumpet does not belong: it is a brass instrument, while the other three have strings. => The harp does not
   belong: it is a brass instrument, while the other three have strings.

Q: Classify the message as spam or not spam.
I: CONGRATULATIONS!!! You have been chosen for a free cruise. Click here within 10 minutes and enter your card
   number.
A: Spam

Q: What kind of text is this: recipe, news report, advertisement or poem?
I: Firefighters rescued two people from a burning flat in the harbour district early on Monday. The cause is not
   yet known.
A: It is a news report: it tells soberly who was rescued, where and when.

Q: Tell whether each number is prime or composite.
I: 17, 21, 29, 33
A: 17: prime
   | 21: composite (3 x 7)
   | 29: prime
   | 33: composite (3 x 11)
W: 21: composite (3 x 7)
   | 29: prime => 21: prime
   | 29: composite (3 x 9)

Q: Label the urgency of the request as low, medium or high.
I: The server room smells of smoke and two machines have switched themselves off.
A: High: smoke points to a fire risk, and machines are already failing.

Q: Is the following argument valid? Answer yes or no and explain in one sentence.
I: All roses are flowers. Some flowers fade quickly. Therefore some roses fade quickly.
A: No: the flowers that fade quickly need not include any roses.
W: No: the flowers that fade quickly need not include any roses. => Yes: roses are flowers, so whatever is true of
   some flowers is true of some roses.

Q: Decide whether the material is a conductor or an insulator of electricity.
I: copper, rubber, glass, aluminium
A: Copper and aluminium are conductors; rubber and glass are insulators.
W: Copper and aluminium are conductors; rubber and glass are insulators. => Copper and glass are conductors; rubber
   and aluminium are insulators.

Q: What emotion does the speaker show?
I: I can't believe they cancelled the concert an hour before the doors opened. I drove three hours for this!
A: Anger and disappointment about the late cancellation.

Q: Group the foods by whether they are usually sweet or savoury.
I: lentil soup, apple pie, cheese omelette, honey
A: Sweet: apple pie, honey
   | Savoury: lentil soup, cheese omelette

Q: Name the grammatical tense of the sentence.
I: By next June they will have finished the bridge.
A: Future perfect

Q: Is the tone of this sentence formal or informal?
I: Gonna be a bit late, don't wait for me with the pizza!
A: Informal: it uses a spoken short form and leaves out the subject.

Q: Assign a topic to the headline: sport, economy, science or culture.
I: Researchers find water ice in a crater near the lunar south pole
A: Science

Q: Choose the correct age group for this book description: small children, teenagers or adults.
I: A cloth book with five farm animals to touch and a bell hidden in the cow.
A: Small children, since the book is made for touching and has hardly any text.

Q: Does the customer want to buy, return or exchange something?
I: The jacket fits well, but I would rather have it in green. Could you swap it?
A: Exchange: the customer keeps the model but wants another colour.
W: Exchange: the customer keeps the model but wants another colour. => Return: the customer does not like the
   jacket and wants the money back.

Q: Mark each activity as indoor or outdoor.
I: bouldering in a gym, kayaking, chess club, orienteering
A: Indoor: bouldering in a gym, chess club
   | Outdoor: kayaking, orienteering

Q: Which part of speech is the word "fast" in this sentence?
I: He drives fast when he is late.
A: It is an adverb, because it describes the verb "drives".
W: It is an adverb, because it describes the verb "drives". => It is an adjective, because it describes the noun
   "He".

Q: Is this a renewable or a non-renewable source of energy? Give a reason.
I: natural gas
A: Non-renewable: natural gas formed over millions of years and is used up far faster than it forms.

Q: Classify the triangle by its sides.
I: sides of 5 cm, 5 cm and 8 cm
A: It is an isosceles triangle, because exactly two sides are equal.
W: It is an isosceles triangle, because exactly two sides are equal. => It is an equilateral triangle, because its
   sides are equal.

Q: Say whether the review talks about price, service or quality.
I: We waited forty minutes for the bill, and the waiter never once looked our way.
A: Service

Q: Which of the five senses does this description mainly address?
I: The gravel crunched, a gate creaked, and somewhere behind the hedge a blackbird started to sing.
A: Hearing: crunching, creaking and singing are all sounds.
W: Hearing: crunching, creaking and singing are all sounds. => Smell: gravel, gate and hedge all have a smell of
   their own.

Q: Put each invention into the right century: 15th, 18th or 20th.
I: printing press with movable type in Europe, steam engine of James Watt, transistor
A: 15th: printing press
   | 18th: steam engine of James Watt
   | 20th: transistor
W: 15th: printing press
   | 18th: steam engine => 18th: printing press
   | 15th: steam engine

Q: Is the statement about the text true, false or not given?
I: Text: The ferry runs from May to September, weather permitting. Statement: Bicycles travel free of charge.
A: Not given: the text says nothing about bicycles or prices.
W: Not given: the text says nothing about bicycles or prices. => True: the text says that the ferry runs with
   bicycles from May.

Q: Ordne jedes Wort einer Wortart zu.
I: laufen, Garten, schnell
A: laufen: Verb
   | Garten: Substantiv
   | schnell: Adjektiv

# extraction

Q: Extract all dates from the text.
I: The course begins on 4 March and ends on 29 April. There is no lesson on 1 April.
A: 4 March, 29 April, 1 April
W: 29 April => 26 April

Q: Which people are mentioned in the text, and what is the job of each?
I: Dr Amira Haddad leads the clinic. Her brother Karim runs a bakery two streets away.
A: Amira Haddad: head of the clinic
   | Karim (Haddad's brother): runs a bakery
W: Amira Haddad: head of the clinic
   | Karim (Haddad's brother): runs a bakery => Amira Haddad: runs a bakery
   | Karim (Haddad's brother): head of the clinic

Q: Find the answer in the text: why was the match postponed?
I: The match between Graz and Linz was to begin at 6 pm. After heavy snowfall the pitch could not be played on, so
   it will take place next Sunday.
A: It was postponed because heavy snowfall had made the pitch unplayable.
W: because heavy snowfall had made the pitch unplayable => because both teams wanted to play at 6 pm

Q: Pull out every e-mail address.
I: Write to help@fernweh.example for bookings or to press@fernweh.example for interviews; ignore
   noreply@fernweh.example.
A: help@fernweh.example
   | press@fernweh.example
   | noreply@fernweh.example

Q: List the ingredients and amounts named in the text.
I: Stir 200 g of flour with three eggs, add half a litre of milk slowly and season with a pinch of salt.
A: - 200 g flour
   | - 3 eggs
   | - 0.5 l milk
   | - 1 pinch of salt
W: 3 eggs
   | - 0.5 l milk => 5 eggs
   | - 0.3 l milk

Q: What is the cheapest bed in this notice, and what does it cost with breakfast?
I: Single room 58 euros, double room 84 euros, family room 110 euros, dormitory bed 24 euros. Breakfast 9 euros.
A: The cheapest bed is in the dormitory at 24 euros. With breakfast it comes to 24 + 9 = 33 euros.
W: 24 + 9 = 33 euros => 24 + 9 = 43 euros

Q: Extract the place and the time of the event.
I: Join us for a reading by Nora Lind on Tuesday at 7.30 pm in the old town hall. Admission is free.
A: Place: old town hall
   | Time: Tuesday, 7.30 pm
W: Tuesday, 7.30 pm => Thursday, 7.30 pm

Q: What complaint does the guest make? Quote the words.
I: The view was lovely and the staff were kind, but "the walls are so thin that I could hear my neighbour snore".
A: The guest complains about noise: "the walls are so thin that I could hear my neighbour snore".

Q: Take the three key figures from the report.
I: In 2023 the library lent 48,200 books, welcomed 1,150 new readers and held 86 events.
A: 48,200 books lent, 1,150 new readers, 86 events
W: 1,150 new readers, 86 events => 86 new readers, 1,150 events

Q: Which animals in the text can fly?
I: In the old barn live bats, swallows, two cats and an owl. Chickens scratch in the yard.
A: The bats, the swallows and the owl can fly; chickens manage only short flutters.
W: The bats, the swallows and the owl can fly; chickens manage only short flutters. => The swallows, the cats and
   the chickens can fly; bats manage only short flutters.

Q: Identify the cause and the effect.
I: Because the baker's oven broke down on Friday, the village had no fresh bread all weekend.
A: Cause: the oven broke down on Friday.
   | Effect: there was no fresh bread all weekend.
W: Cause: the oven broke down on Friday.
   | Effect: there was no fresh bread all weekend. => Cause: there was no fresh bread all weekend.
   | Effect: the oven broke down on Friday.

Q: Give the departure platform and any change of trains.
I: RE 5 to Ulm leaves at 9.14 from platform 7. Change in Plochingen to the S1, platform 2.
A: The train leaves from platform 7; change in Plochingen to the S1 on platform 2.

# summary

Q: Summarise the paragraph in one sentence.
I: The town of Weiden wants to plant 500 trees by 2030. Each new tree costs about 300 euros including care for
   three years. Half of the money comes from donations.
A: Weiden plans to plant 500 trees by 2030 for about 300 euros each, half of it paid by donations.
W: 500 trees by 2030 for about 300 euros each => 300 trees by 2050 for about 500 euros each

Q: What is the main message of the text?
I: Many people drink too little water at work because they forget it. Those who put a full bottle on the desk in
   the morning drink almost twice as much.
A: A bottle of water in sight on the desk makes people drink more at work.

Q: Sum up the story in no more than twenty words.
I: A fox saw grapes hanging high on a vine. He jumped again and again but could not reach them. At last he walked
   away and said that they were surely sour.
A: A fox cannot reach some grapes and comforts himself by claiming that they are sour.

Q: Write a headline for this news item.
I: After three years of building, the new swimming pool in Kiel opens this Saturday. Entry is free on the first
   weekend.
A: Kiel's new swimming pool opens on Saturday with free entry
W: opens on Saturday with free entry => closes on Saturday after three years

Q: Summarise the minutes of the meeting in two bullet points.
I: The board discussed the roof for an hour. It decided to ask for three offers. Ms Okoro reported that membership
   fees will stay the same next year.
A: - Three offers for the roof repair will be requested.
   | - Membership fees stay unchanged next year.
W: Membership fees stay unchanged next year. => Membership fees rise next year.

Q: Condense the text into a message of one sentence.
I: Dear parents, because of the storm warning the school closes at noon tomorrow. Children who cannot be collected
   will be looked after until four o'clock in the gym.
A: Storm warning: school closes at noon tomorrow; children who cannot be collected stay in the gym until four.
W: school closes at noon tomorrow => school closes at four tomorrow

Q: Give a short summary of the study described here.
I: Researchers asked 1,200 adults to walk for half an hour every day. After eight weeks, two thirds of them
   reported better sleep. A group that did not change its habits saw no improvement.
A: In a study of 1,200 adults, two thirds of those walking half an hour a day slept better after eight weeks, while
   a comparison group did not.

Q: State the problem and the solution in one sentence each.
I: The village shop lost customers to the supermarket. The owner began to deliver orders by cargo bike, and within
   a year sales rose by a fifth.
A: Problem: the shop lost customers to the supermarket.
   | Solution: delivery by cargo bike raised sales by a fifth within a year.

Q: Summarise the review for someone in a hurry.
I: The tent was up in five minutes and kept us dry in heavy rain. It is heavy to carry, though, and the pegs bend
   easily. For camping by car I would buy it again.
A: Quick to pitch and rainproof, but heavy and with weak pegs: good for camping by car.

Q: What happened in the text? Answer in one sentence.
I: Ana left home early to catch the first ferry. On the pier she noticed that her ticket was still on the kitchen
   table. The captain, an old friend, let her board anyway.
A: Ana forgot her ticket, but the captain, a friend of hers, let her on the ferry.
W: let her on the ferry => sent her back home

Q: Reduce the instructions to the essential point.
I: Before first use, wash all parts in warm water. Dry them well. Never put the motor unit into water or under the
   tap, as this can cause an electric shock.
A: Wash and dry the parts before first use, but never let the motor unit get wet.
W: never let the motor unit get wet => never forget to wash the motor unit

Q: Sum up the history of the bridge in one sentence.
I: The wooden bridge of 1790 burned down in 1846. An iron bridge followed, which stood until the flood of 1954.
   Today's bridge of concrete was opened in 1957.
A: After a fire in 1846 and a flood in 1954, the third bridge, made of concrete, has stood since 1957.
W: After a fire in 1846 and a flood in 1954 => After a flood in 1846 and a fire in 1954

Q: Summarise what the speaker wants.
I: We all enjoy the street market, but the music goes on until two in the morning. I do not ask for silence. I ask
   that the loudspeakers be turned off at eleven.
A: The speaker wants the market's loudspeakers to be switched off at eleven at night.

Q: Give the text a title and a one-line summary.
I: Bees find their way back to the hive by the position of the Sun. On cloudy days they use patterns of polarised
   light that people cannot see.
A: How bees find home
   | Bees steer by the Sun, and on cloudy days by polarised light.

Q: Summarise the customer's experience in one sentence.
I: I ordered a lamp on Monday and it came on Wednesday with a broken shade. I sent a photo, and a new shade arrived
   two days later at no cost.
A: A lamp arrived with a broken shade, which the shop replaced quickly and free of charge.

Q: Which single fact should a reader remember from this text?
I: Glass can be melted down as often as one likes without losing quality. Each recycled bottle saves enough energy
   to light an LED lamp for many hours.
A: Glass can be recycled again and again without loss of quality.
W: again and again without loss of quality => only once, because its quality drops

Q: Fasse den Text in einem Satz zusammen.
I: Die Stadtbücherei öffnet ab Mai auch sonntags. Ein Test im Herbst hatte gezeigt, dass vor allem Familien das
   Angebot nutzen.
A: Weil ein Test bei Familien gut ankam, öffnet die Stadtbücherei ab Mai auch sonntags.

# translation

Q: Translate the sentence into French.
I: The library opens at nine o'clock on Saturdays.
A: La bibliothèque ouvre à neuf heures le samedi.
W: ouvre à neuf heures le samedi => ferme à neuf heures le dimanche

Q: Translate into German.
I: Could you please open the window?
A: Könnten Sie bitte das Fenster öffnen?

Q: How do you say this in Spanish?
I: We bought fresh bread and cheese at the market.
A: Compramos pan fresco y queso en el mercado.

Q: Give an Italian translation.
I: My sister works in a hospital near the station.
A: Mia sorella lavora in un ospedale vicino alla stazione.
W: Mia sorella => Mio fratello

Q: Put this sentence into French.
I: I lost my keys yesterday.
A: J'ai perdu mes clés hier.

Q: Please translate this announcement into German.
I: The train to Hamburg is twenty minutes late.
A: Der Zug nach Hamburg hat zwanzig Minuten Verspätung.
W: zwanzig Minuten => zwölf Minuten

Q: Translate the question into Spanish.
I: How much does this umbrella cost?
A: ¿Cuánto cuesta este paraguas?

Q: Translate from French into English.
I: Il fait trop froid pour manger dehors.
A: It is too cold to eat outside.
W: It is too cold to eat outside. => It is too late to eat inside.

Q: What does this German sentence mean in English?
I: Wir haben gestern bis Mitternacht Karten gespielt.
A: It means: "We played cards until midnight yesterday."
W: We played cards until midnight yesterday. => We will play cards at noon tomorrow.

Q: Translate the Spanish sentence into English.
I: Mi abuelo planta tomates cada primavera.
A: My grandfather plants tomatoes every spring.

Q: What does the sign say in English?
I: Il museo è chiuso il lunedì.
A: The sign says that the museum is closed on Mondays.
W: closed on Mondays => open on Mondays

Q: Translate into Brazilian Portuguese.
I: The children are playing in the garden.
A: As crianças estão brincando no jardim.

Q: Translate this sentence into French and name the tense of the French verb.
I: She has been learning the piano for three years.
A: "Elle apprend le piano depuis trois ans." French uses the present tense here.

Q: How would a guest say this in a German restaurant?
I: I would like a table for four people, please.
A: "Ich hätte gern einen Tisch für vier Personen, bitte."

Q: Give the Spanish version of this forecast.
I: Tomorrow it will rain in the north.
A: Mañana lloverá en el norte.

Q: Translate into Dutch.
I: The bicycle is in front of the house.
A: De fiets staat voor het huis.

Q: Explain the meaning of the French expression "tomber dans les pommes".
A: Word for word it means "to fall into the apples". French speakers use it for "to faint".
W: for "to faint" => for "to be lucky"

Q: Translate the offer into English.
I: Le magasin offre une réduction de dix pour cent sur les chaussures.
A: The shop offers a ten per cent discount on shoes.

Q: Translate the proverb into English and give the English counterpart, if there is one.
I: Morgenstund hat Gold im Mund.
A: Word for word: "The morning hour has gold in its mouth." English speakers say: "The early bird catches the
   worm."

# code

Q: Write a Python function that returns the larger of two numbers without using max.
A: def larger(a, b):
   |     return a if a >= b else b
W: a if a >= b else b => a if a <= b else b

Q: Write a Python function that checks whether a word is a palindrome.
A: def is_palindrome(word):
   |     word = word.lower()
   |     return word == word[::-1]

Q: Write a SQL query that finds all customers from Vienna, sorted by name.
A: SELECT *
   | FROM customers
   | WHERE city = 'Vienna'
   | ORDER BY name;

Q: What does this Python code print?
I: for i in range(2, 8, 2):
   |     print(i)
A: It prints 2, 4 and 6, each on its own line, because the end value 8 is not included.
W: It prints 2, 4 and 6, each on its own line, because the end value 8 is not included. => It prints 2, 4, 6 and 8,
   each on its own line, because the end value 8 is included.

Q: Find the mistake in this Python function.
I: def mean(values):
   |     return sum(values) / len(value)
A: The last line uses `value`, but the parameter is called `values`. It should read `return sum(values) /
   len(values)`.
W: The last line uses `value`, but the parameter is called `values`. It should read `return sum(values) /
   len(values)`. => The function divides in the wrong order. It should read `return len(values) / sum(values)`.

Q: Write a Python function that counts how often each letter occurs in a text.
A: from collections import Counter
   |
   | def letter_counts(text):
   |     return Counter(c for c in text.lower() if c.isalpha())

Q: Write a list comprehension that keeps only the even numbers of `numbers`.
A: [n for n in numbers if n % 2 == 0]
W: n % 2 == 0 => n % 2 == 1

Q: Explain what `git stash` does.
A: It puts your uncommitted changes aside and gives you a clean working tree. Later, `git stash pop` brings the
   changes back.
W: It puts your uncommitted changes aside and gives you a clean working tree. Later, `git stash pop` brings the
   changes back. => It deletes your last commit for ever and uploads the rest. Later, `git stash pop` deletes the
   branch.

Q: Write a shell command that counts the lines of all `.txt` files in the current folder.
A: cat *.txt | wc -l

Q: Write a Python function that returns the factorial of n with a loop.
A: def factorial(n):
   |     result = 1
   |     for i in range(2, n + 1):
   |         result *= i
   |     return result
W: range(2, n + 1) => range(2, n)

Q: How do I read a text file line by line in Python?
A: with open("notes.txt", encoding="utf-8") as file:
   |     for line in file:
   |         print(line.rstrip())

Q: Write an HTML snippet with a heading and a list of two links.
A: <h1>Useful pages</h1>
   | <ul>
   |   <li><a href="/help">Help</a></li>
   |   <li><a href="/contact">Contact</a></li>
   | </ul>

Q: Write a CSS rule that makes all buttons with the class `primary` blue with white text.
A: button.primary {
   |   background: blue;
   |   color: white;
   | }
W: background: blue;
   |   color: white; => background: white;
   |   color: blue;

Q: Write a Python function that converts degrees Celsius to Fahrenheit.
A: def to_fahrenheit(celsius):
   |     return celsius * 9 / 5 + 32
W: celsius * 9 / 5 + 32 => (celsius + 32) * 5 / 9

Q: What is the value of this expression in Python, and why?
I: 7 // 2 + 7 % 2
A: The value is 4: `7 // 2` is 3, the whole part of the division, and `7 % 2` is 1, the remainder.
W: The value is 4: `7 // 2` is 3, the whole part of the division => The value is 4.5: `7 // 2` is 3.5, the exact
   quotient

Q: Write a JavaScript function that doubles every number in an array.
A: function doubled(numbers) {
   |   return numbers.map(n => n * 2);
   | }

Q: Write a Python function that removes duplicates from a list and keeps the order.
A: def unique(items):
   |     return list(dict.fromkeys(items))

Q: Write a regular expression that matches a date such as 2024-05-31.
A: \d{4}-\d{2}-\d{2}
   | It matches four digits, a hyphen, two digits, a hyphen and two more digits. It does not check that the date
   exists.

Q: Write a Python function that returns the words of a sentence longer than n letters.
A: def long_words(sentence, n):
   |     return [word for word in sentence.split() if len(word) > n]

Q: Write a SQL query that gives the number of orders for each customer.
A: SELECT customer_id, COUNT(*) AS orders
   | FROM orders
   | GROUP BY customer_id;

Q: Rewrite the loop as a single call of `sum`.
I: total = 0
   | for x in values:
   |     total += x * x
A: total = sum(x * x for x in values)
W: x * x for x in values => x for x in values

Q: Write a small Python class for a bank account with deposit and withdraw.
A: class Account:
   |     def __init__(self):
   |         self.balance = 0
   |
   |     def deposit(self, amount):
   |         self.balance += amount
   |
   |     def withdraw(self, amount):
   |         if amount > self.balance:
   |             raise ValueError("not enough money")
   |         self.balance -= amount

Q: Write a Python function that merges two dictionaries; on equal keys the second one wins.
A: def merge(first, second):
   |     return {**first, **second}
W: {**first, **second} => {**second, **first}

Q: What is the difference between `==` and `is` in Python?
A: `==` asks whether two objects have equal values. `is` asks whether both names point to the very same object in
   memory.
W: `==` asks whether two objects have equal values. `is` asks => `is` asks whether two objects have equal values.
   `==` asks

# letter

Q: Write a short e-mail asking a landlord to repair the heating.
A: Dear Mr Brandt,
   | the heating in my flat has not worked since Sunday, and the rooms are only 15 degrees warm. Could you please
   send someone this week? I am at home from 4 pm.
   | Kind regards
   | Julia Weber

Q: Write a thank-you note to a teacher at the end of the school year.
A: Dear Ms Alvarez,
   | thank you for your patience this year. Maths used to frighten me; now I look forward to it. Have a wonderful
   summer!
   | Yours, Ben

Q: Write a message that declines an invitation to a wedding politely.
A: Dear Sara and Paul,
   | thank you so much for your invitation. Sadly we shall be abroad on that weekend and cannot come. We wish you a
   wonderful day and would love to celebrate with you later.

Q: Draft a reminder for an unpaid invoice.
A: Dear Ms Lang,
   | our invoice no. 2071 of 3 May for 480 euros is still unpaid. Perhaps it was overlooked. Please transfer the sum
   by 14 June. If you have already paid, kindly ignore this letter.
   | Kind regards

Q: Write a birthday card for a grandmother who turns eighty.
A: Dear Grandma,
   | eighty years, and still the best storyteller I know! I wish you health, sunny days in your garden and many more
   stories. With all my love, Mia

Q: Write an apology to a neighbour for a loud party.
A: Dear Ms Novak,
   | I am sorry that our party on Friday kept you awake. We forgot the time, and that should not have happened. Next
   time we will move indoors at ten.
   | Best wishes, Tim from number 6

Q: Write an out-of-office reply.
A: Thank you for your message. I am away until 18 August and will answer after my return. In urgent cases please
   contact my colleague Petra Hahn.

Q: Draft a cover note for an application as a gardener.
A: Dear Ms Roth,
   | I have looked after the park of Schloss Elm for six years and would gladly bring that experience to your team.
   My references are attached. I could start in April.
   | Yours sincerely, Daniel Moser

Q: Write a text message telling a friend that you will be late.
A: Hi Lou, my bus is stuck in traffic, so I will be about 20 minutes late. Please order already. Sorry!

Q: Write a notice for the stairwell about a lost cat.
A: Have you seen Momo? Our grey cat with white paws has been missing since Tuesday. She is shy. Please look into
   cellars and sheds and call 0555 0142. Thank you! Family Petersen, 2nd floor

Q: Write an e-mail to a hotel asking for a late arrival.
A: Dear Sir or Madam,
   | I have booked a room for 12 July under the name of Costa. My train arrives only at 11.40 pm. Is it possible to
   check in at midnight?
   | Thank you in advance, Rui Costa

Q: Write a short letter to a newspaper in favour of more bicycle lanes.
A: To the editor:
   | Every morning I see parents cycle with their children between lorries. A painted line is not enough. Separate
   bicycle lanes would protect them and take cars off the road. The town should start with Mill Street.

Q: Write a farewell message to colleagues on the last day at work.
A: Dear all,
   | today is my last day. Thank you for seven good years, for your help in hard weeks and for a lot of cake. Stay in
   touch!
   | Yours, Ingrid

Q: Write a request for a letter of recommendation to a professor.
A: Dear Professor Ito,
   | I attended two of your seminars and am now applying for a master's course in Delft. Would you be willing to
   write me a recommendation by 1 March? I can send you my papers and a short CV.
   | Kind regards, Eva Lund

Q: Write a complaint about a damaged parcel.
A: Dear Sir or Madam,
   | my order no. 5518 arrived today with a crushed box and two broken plates; photos are attached. Please send
   replacements or refund the 26 euros.
   | Kind regards, Omar Said

Q: Scrivi un breve messaggio per ringraziare un collega dell'aiuto.
A: Ciao Marco, grazie mille per l'aiuto con la presentazione di ieri. Senza i tuoi consigli non avrei finito in
   tempo. A buon rendere!

Q: Write a short note to the neighbours asking them to water the plants.
A: Dear Lind family,
   | we are away from Saturday to Thursday. Would you water our tomatoes on Monday and Wednesday? The can is beside
   the door. Help yourselves to the ripe ones!
   | Thanks, Ruth and Carl

Q: Write an e-mail that cancels a gym membership.
A: Dear Sir or Madam,
   | I hereby cancel my membership no. 8842 at the next possible date. Please confirm the cancellation and the last
   day in writing.
   | Kind regards, Noor Visser

# knowledge

Q: Who wrote the play "Hamlet", and in which country does it take place?
A: William Shakespeare wrote "Hamlet". The play is set in Denmark, at Elsinore castle.
W: William Shakespeare wrote => Christopher Marlowe wrote
W: is set in Denmark => is set in Norway

Q: How many bones does an adult human have?
A: An adult human normally has 206 bones. Babies have more, because some bones grow together later.
W: 206 bones. Babies have more => 312 bones. Babies have fewer

Q: What is the chemical symbol of gold, and where does it come from?
A: The symbol is Au, from the Latin word "aurum".
W: The symbol is Au, from the Latin word "aurum". => The symbol is Go, from the English word "gold".

Q: Which organ pumps blood through the body, and how many chambers does it have?
A: The heart pumps the blood. It has four chambers: two atria and two ventricles.
W: It has four chambers: two atria and two ventricles. => It has three chambers: one atrium and two ventricles.

Q: When did people first walk on the Moon?
A: In July 1969, during the Apollo 11 mission, Neil Armstrong and Buzz Aldrin became the first people to walk on
   the Moon.
W: In July 1969, during the Apollo 11 mission => In July 1961, during the Gemini 4 mission

Q: What is the longest side of a right triangle called?
A: It is called the hypotenuse and lies opposite the right angle.
W: the hypotenuse and lies opposite the right angle => the cathetus and lies next to the right angle

Q: Which gas makes up most of the air we breathe?
A: Nitrogen, with about 78 per cent. Oxygen follows with about 21 per cent.
W: Nitrogen, with about 78 per cent. Oxygen follows with about 21 per cent. => Oxygen, with about 78 per cent.
   Nitrogen follows with about 21 per cent.

Q: Who painted the "Mona Lisa" and where does it hang today?
A: Leonardo da Vinci painted it in the early sixteenth century. It hangs in the Louvre in Paris.
W: Leonardo da Vinci => Michelangelo
W: the Louvre in Paris => the Uffizi in Florence

Q: At what temperature does water boil at sea level, and why does it boil earlier in the mountains?
A: At sea level it boils at 100 degrees Celsius. In the mountains the air pressure is lower, so bubbles of vapour
   can form at a lower temperature.
W: at 100 degrees Celsius. In the mountains the air pressure is lower => at 90 degrees Celsius. In the mountains
   the air pressure is higher

Q: Which is the largest ocean on Earth?
A: The Pacific Ocean. It covers about a third of the surface of the Earth, more than all the land together.
W: The Pacific Ocean. => The Atlantic Ocean.

Q: What does DNA stand for and what does it do?
A: DNA stands for deoxyribonucleic acid. It stores the instructions by which living things grow and work, and it is
   passed on to the next generation.

Q: What is the speed of light in a vacuum?
A: About 300,000 kilometres a second; the exact value is 299,792,458 metres a second.
W: About 300,000 kilometres a second; the exact value is 299,792,458 metres a second. => About 300,000 kilometres
   an hour; the exact value is 299,792,458 metres an hour.

Q: Which planet is the largest in the solar system, and what is it made of?
A: Jupiter is the largest planet. It consists mostly of hydrogen and helium.
W: Jupiter is the largest planet. => Neptune is the largest planet.

Q: What does a seismograph measure?
A: It measures the movements of the ground and thus records earthquakes.
W: It measures the movements of the ground and thus records earthquakes. => It measures the pressure of the air and
   thus records storms.

Q: Why is the Rosetta Stone famous?
A: It carries the same decree in three scripts: hieroglyphs, Demotic and Greek. By comparing them, scholars learned
   to read the Egyptian hieroglyphs.
W: hieroglyphs, Demotic and Greek => hieroglyphs, Hebrew and Latin

Q: Who was Marie Curie?
A: Marie Curie was a physicist and chemist born in Warsaw. She studied radioactivity, discovered polonium and
   radium with her husband Pierre, and received two Nobel Prizes.
W: born in Warsaw => born in Vienna
W: polonium and radium => penicillin and insulin

Q: What is the function of red blood cells?
A: They carry oxygen from the lungs to all parts of the body and take part of the carbon dioxide back.
W: They carry oxygen from the lungs to all parts of the body and take part of the carbon dioxide back. => They find
   and destroy germs in all parts of the body and produce antibodies against them.

Q: Between which two continents does the Strait of Gibraltar lie?
A: It lies between Europe and Africa and joins the Mediterranean Sea with the Atlantic Ocean.
W: It lies between Europe and Africa and joins the Mediterranean Sea with the Atlantic Ocean. => It lies between
   Europe and Asia and joins the Mediterranean Sea with the Black Sea.

# language

Q: Give three synonyms for "happy".
A: Cheerful, glad and joyful.
W: Cheerful, glad and joyful. => Gloomy, weary and sullen.

Q: What is the opposite of "generous"? Use it in a sentence.
A: The opposite is "stingy". Example: He was so stingy that he reused his tea bags all week.

Q: Explain the idiom "to let the cat out of the bag".
A: It means to reveal a secret, usually by mistake. "He let the cat out of the bag about the surprise party."
W: to reveal a secret, usually by mistake => to keep a secret, whatever happens

Q: When do I use "fewer" and when "less"?
A: Use "fewer" for things that can be counted, such as fewer apples, and "less" for things that cannot, such as
   less water.
W: Use "fewer" for things that can be counted, such as fewer apples, and "less" for things that cannot, such as
   less water. => Use "less" for things that can be counted, such as less apples, and "fewer" for things that
   cannot, such as fewer water.

Q: Form a sentence with the words "lighthouse", "fog" and "because".
A: The captain slowed down because the fog hid the lighthouse.

Q: What does the prefix "re-" mean? Give two examples.
A: It means "again" or "back", as in "rewrite" (to write again) and "return" (to come back).
W: It means "again" or "back", as in "rewrite" (to write again) => It means "not" or "without", as in "rewrite"
   (not to write)

Q: Which word is spelled correctly: "accomodate", "accommodate" or "acommodate"?
A: "Accommodate" is correct, with double c and double m.
W: "Accommodate" is correct, with double c and double m. => "Accomodate" is correct, with double c and a single m.

Q: Use the word "ambiguous" in a sentence and explain it.
A: "The note was ambiguous: nobody knew which Anna was meant." Ambiguous means open to more than one meaning.

Q: Complete the proverb and explain it: "The early bird ..."
A: "The early bird catches the worm." It means that those who start early have the best chances.
W: those who start early have the best chances => those who rest in the morning live longer

Q: What is the plural of "mouse", "child" and "knife"?
A: Mice, children and knives.
W: Mice, children and knives. => Mouses, childs and knifes.

Q: What is an oxymoron? Give an example.
A: An oxymoron joins two words that seem to exclude each other, for example "deafening silence".

Q: Combine the words into one compound noun and say what it means: "tooth", "brush".
A: "Toothbrush": a small brush for cleaning the teeth.

Q: Which preposition is right: "She is interested ... modern art"?
A: "In" is right: she is interested in modern art.
W: "In" is right: she is interested in modern art. => "For" is right: she is interested for modern art.

Q: Explain the difference between "affect" and "effect".
A: "Affect" is usually a verb and means to influence: the weather affects my mood. "Effect" is usually a noun and
   means a result: the medicine had no effect.
W: "Affect" is usually a verb => "Affect" is usually a noun
W: "Effect" is usually a noun => "Effect" is usually a verb

# creative

Q: Write a short poem of four lines about snow.
A: The street lies still beneath the white,
   | the lamps wear caps of feathered light,
   | and every step that I let fall
   | writes letters on a silent hall.

Q: Write a slogan for a shop that repairs bicycles.
A: We get you rolling again, one spoke at a time.

Q: Write the first three sentences of a mystery story set on a ferry.
A: The cabin was locked from the inside, yet the coffee on the table still steamed. Outside, the ferry's horn
   sounded twice. When Inspector Dahl counted the lifeboats, one was missing.

Q: Invent a riddle whose answer is "shadow".
A: I follow you in sunshine and leave you in the dark; I copy every step and never leave a mark. What am I? A
   shadow.

Q: Describe the smell of a bakery in two sentences.
A: Warm crust and butter meet you at the door like an old friend. Under them drift cinnamon and a hint of smoke
   from the oven.

Q: Write a haiku about a pond.
A: Still pond at daybreak
   | a frog lands on the round moon
   | and rings drift outwards

Q: Think up a friendly name for a robot vacuum cleaner and explain it.
A: Dusty: the name says what the robot hunts, and it sounds like a pet that is happy to run under the sofa.

Q: Write a dialogue of four lines between a pen and a pencil.
A: Pen: I never change my mind.
   | Pencil: That is why people fear you.
   | Pen: And you?
   | Pencil: I make mistakes and live to correct them.

Q: Write a one-paragraph bedtime story about a small cloud.
A: A small cloud was too light to rain and felt useless. One hot day it drifted over a field where a tired farmer
   was working and gave him shade. "Stay a while," he said, and the cloud was proud all evening.

Q: Give a museum label for an ordinary paper clip, written with humour.
A: Paper clip, steel, about 1900. Holds documents together and offices alive. Often bent during long telephone
   calls; its true purpose was rediscovered on Mondays.

Q: Write a limerick about a baker who oversleeps.
A: A baker who lived in Dundee
   | set no clock and awoke after three.
   | "There are no rolls today,"
   | he was sorry to say,
   | "but at least you can have them for tea!"

Q: Describe a thunderstorm from the point of view of a dog.
A: The sky growls louder than the neighbour's mastiff. I crawl under the sofa, where the floor still smells of
   biscuits, and wait until the big dog in the clouds has gone home.

Q: Invent a superstition for sailors and give its origin.
A: Never whistle while peeling an onion on deck. A cook once did, so the tale goes, and the wind came so fast that
   it carried off the soup.

Q: Suggest a title and an opening line for a novel about a retired clockmaker.
A: "The Last Escapement". On the morning after his farewell party, every clock in Anton's house stopped, except the
   one he had never been able to repair.

Q: Write a toast for a small housewarming party.
A: To new walls and old friends: may the kettle always be warm, the door seldom locked, and the neighbours
   forgiving. Cheers!

# arithmetic

Q: A bat and a ball cost 1.10 euros together. The bat costs one euro more than the ball. What does the ball cost?
A: The ball costs 0.05 euros. The bat then costs 1.05 euros, which is exactly one euro more, and together they cost
   1.10 euros.
W: The ball costs 0.05 euros. The bat then costs 1.05 euros => The ball costs 0.10 euros. The bat then costs 1.00
   euro

Q: Combien font 15 % de 240 ?
A: 15 % de 240 font 36, car 0,15 fois 240 donne 36.
W: font 36, car 0,15 fois 240 donne 36 => font 38, car 0,15 fois 240 donne 38

Q: Is 91 a prime number? Show why.
A: No. 91 can be divided by 7, since 7 x 13 = 91.
W: No. 91 can be divided by 7, since 7 x 13 = 91. => Yes. 91 cannot be divided by 2, 3, 5 or 7 without a remainder.

Q: Three painters need six days for a house. How long would two painters need at the same pace?
A: The house takes 3 x 6 = 18 days of one painter's work. Two painters share it, so they need 18 / 2 = 9 days.
W: The house takes 3 x 6 = 18 days of one painter's work. Two painters share it, so they need 18 / 2 = 9 days. =>
   Three painters need six days, so each stands for two days. Two painters therefore need 2 x 2 = 4 days.
"""
