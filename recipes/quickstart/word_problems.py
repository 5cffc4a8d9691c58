"""The task that the quickstart selects for: word problems, in the notation of [`content.parse`].

None of them is of a template that makes rows of the pool. Some are the target, the others are the held-out rows.
"""

WORD_PROBLEMS = """
# arithmetic

Q: A florist ties 84 tulips into bunches of 7. She sells each bunch for 4 euros. How much does she earn?
A: There are 84 / 7 = 12 bunches, and 12 x 4 = 48 euros.

Q: A farmer collects 156 eggs and breaks 12 of them. The rest go into boxes of 6. How many boxes does he fill?
A: 156 - 12 = 144 eggs are left, and 144 / 6 = 24 boxes are filled.

Q: Each of the 14 floors of a hotel has 22 rooms. 63 rooms are empty. How many are occupied?
A: The hotel has 14 x 22 = 308 rooms, and 308 - 63 = 245 are occupied.

Q: A printer puts out 24 pages a minute. How many pages does it print in a quarter of an hour?
A: A quarter of an hour is 15 minutes, and 15 x 24 = 360 pages.

Q: A ferry carries 45 cars on each crossing and crosses 8 times a day. How many cars does it carry in a week?
A: On one day it carries 45 x 8 = 360 cars, and in a week 360 x 7 = 2520 cars.

Q: A library had 1250 books. It bought 180 new ones and gave away 95. How many books does it have now?
A: 1250 + 180 = 1430, and 1430 - 95 = 1335 books.

Q: A tank holds 600 litres and is two thirds full. How many litres are missing?
A: Two thirds of 600 are 400 litres, so 600 - 400 = 200 litres are missing.

Q: Nora reads 28 pages every evening. Her novel has 392 pages. After how many evenings has she finished it?
A: 392 / 28 = 14, so she has finished it after 14 evenings.

Q: A roll of wire is 50 m long. An electrician cuts off 6 pieces of 3.5 m. How much wire is left?
A: The pieces take 6 x 3.5 = 21 m, so 50 - 21 = 29 m are left.

Q: A choir has 48 singers. Three eighths of them are men. How many women sing in it?
A: One eighth is 48 / 8 = 6, so 3 x 6 = 18 are men, and 48 - 18 = 30 are women.

Q: A lift may carry 630 kg. How many people of 75 kg each may use it at the same time?
A: 8 people weigh 8 x 75 = 600 kg, and a ninth would be too many, so 8 people may use it.

Q: A school orders 35 chairs at 42 euros each and gets 100 euros off the bill. What does it pay?
A: The chairs cost 35 x 42 = 1470 euros, and 1470 - 100 = 1370 euros are paid.

Q: Water drips from a tap at 12 ml a minute. How much water is lost in 2 hours?
A: 2 hours are 120 minutes, and 120 x 12 = 1440 ml are lost.

Q: A gardener plants 9 rows of 16 lettuces. Snails eat 27 of them. How many lettuces remain?
A: She plants 9 x 16 = 144 lettuces, and 144 - 27 = 117 remain.

Q: A cinema sold 212 tickets at 9 euros. What was its income?
A: The income was 212 x 9 = 1908 euros.

Q: Four friends rent a boat for 92 euros and buy food for 36 euros. What is the share of each?
A: Together they pay 92 + 36 = 128 euros, and 128 / 4 = 32 euros is the share of each.

Q: A candle is 24 cm tall and burns down 3 cm an hour. How tall is it after 5 hours?
A: It burns down 5 x 3 = 15 cm, so it is 24 - 15 = 9 cm tall.

Q: A bookshop earned 840 euros on Friday and half as much again on Saturday. What did it earn on both days?
A: On Saturday it earned 840 + 420 = 1260 euros, and on both days 840 + 1260 = 2100 euros.

Q: A worker earns 18 euros an hour and 27 euros for each hour of overtime. What does he get for 40 hours and 3
   hours of overtime?
A: 40 x 18 = 720 euros and 3 x 27 = 81 euros make 801 euros.

Q: A snail climbs 5 m up a wall by day and slides down 2 m at night. How high is it after 4 days and nights?
A: Each day and night it gains 5 - 2 = 3 m, so after 4 of them it is 4 x 3 = 12 m high.

Q: A box of 250 screws weighs 1.5 kg. What does one screw weigh in grams?
A: 1.5 kg are 1500 g, and 1500 / 250 = 6 g.

Q: Of 320 pupils, 45 per cent come by bus. How many pupils come in another way?
A: 45 per cent of 320 are 144, so 320 - 144 = 176 pupils come in another way.

Q: A taxi costs 4 euros and 2 euros for each kilometre. How far can one go for 26 euros?
A: 26 - 4 = 22 euros are left for the way, and 22 / 2 = 11 km.

Q: A wall needs 1800 bricks. A mason lays 75 bricks an hour and works 8 hours a day. How many days does he need?
A: He lays 75 x 8 = 600 bricks a day, so he needs 1800 / 600 = 3 days.

Q: A bag contains 15 red balls, twice as many blue ones and 7 green ones. How many balls are in it?
A: There are 2 x 15 = 30 blue balls, and 15 + 30 + 7 = 52 balls in all.

Q: A phone plan costs 12 euros a month, the second one 8 euros and 30 euros once. Which costs less in a year?
A: The first costs 12 x 12 = 144 euros, the second 12 x 8 + 30 = 126 euros, so the second costs less.

Q: A plane has 27 rows of 6 seats. 149 passengers are on board. How many seats are free?
A: The plane has 27 x 6 = 162 seats, so 162 - 149 = 13 seats are free.

Q: A baby weighed 3.4 kg at birth and gained 0.2 kg a week. What did it weigh after 10 weeks?
A: It gained 10 x 0.2 = 2 kg and weighed 3.4 + 2 = 5.4 kg.

Q: A square field has sides of 35 m. A runner goes around it 6 times. How far does he run?
A: Once around is 4 x 35 = 140 m, and 6 x 140 = 840 m.

Q: A shop buys shirts for 11 euros and sells them for 19 euros. What is the profit on 60 shirts?
A: The profit on one is 19 - 11 = 8 euros, and on 60 shirts 60 x 8 = 480 euros.

Q: A cyclist has done 37 km of a tour of 115 km. How far is it to half of the way?
A: Half of the way is 115 / 2 = 57.5 km, so it is 57.5 - 37 = 20.5 km.

Q: Two pumps empty a pool of 900 litres. One takes out 40 litres a minute, the other 20. How long do they need
   together?
A: Together they take out 40 + 20 = 60 litres a minute, so they need 900 / 60 = 15 minutes.

Q: An orchestra gives 7 concerts. Each has 1200 listeners, only the last has 850. How many listeners come in all?
A: The first 6 concerts have 6 x 1200 = 7200 listeners, and 7200 + 850 = 8050 come in all.

Q: A coat cost 160 euros, then 120 euros. By how many per cent did its price fall?
A: It fell by 160 - 120 = 40 euros, and 40 / 160 = 0.25, that is 25 per cent.

Q: A machine fills 8 bottles in 20 seconds. How many does it fill in 5 minutes?
A: 5 minutes are 300 seconds, or 300 / 20 = 15 times as long, so it fills 15 x 8 = 120 bottles.

Q: A postman delivers 96 letters in the morning and a third as many in the afternoon. How many does he deliver?
A: In the afternoon there are 96 / 3 = 32 letters, so he delivers 96 + 32 = 128 letters.

Q: A climber sets out at 850 m and climbs 220 m an hour. At what height is she after 4 hours?
A: She climbs 4 x 220 = 880 m and is at 850 + 880 = 1730 m.

Q: A family uses 3 litres of milk in 2 days. How many litres do they use in June?
A: June has 30 days, or 30 / 2 = 15 times 2 days, so they use 15 x 3 = 45 litres.

Q: A ribbon of 4.8 m is cut into 12 equal pieces. How many centimetres long is each?
A: 4.8 m are 480 cm, and 480 / 12 = 40 cm.

Q: A museum had 430 visitors on Monday and 65 fewer on Tuesday. How many came on both days?
A: On Tuesday 430 - 65 = 365 came, and on both days 430 + 365 = 795.

Q: A chess club has 20 members. Each plays once against each other. How many games are played?
A: Each of the 20 plays 19 games, and each game counts for two, so 20 x 19 / 2 = 190 games are played.

Q: A truck weighs 3.2 tonnes empty and 7.5 tonnes loaded. What does its load weigh in kilograms?
A: The load weighs 7.5 - 3.2 = 4.3 tonnes, that is 4300 kg.

Q: A pack of 6 yoghurts costs 2.40 euros, a single one 0.55 euros. What does one save on each in the pack?
A: In the pack one costs 2.40 / 6 = 0.40 euros, so 0.55 - 0.40 = 0.15 euros are saved.

Q: A clock is 4 minutes slow each day. How slow is it after three weeks?
A: Three weeks are 21 days, and 21 x 4 = 84 minutes, or 1 hour and 24 minutes.

Q: A beekeeper fills 126 jars from 9 hives. How many jars would 14 such hives fill?
A: One hive fills 126 / 9 = 14 jars, and 14 hives fill 14 x 14 = 196 jars.

Q: A theatre group needs 500 euros for costumes. It has 185 euros and gets 45 euros from each of 6 donors. What is
   missing?
A: The donors give 6 x 45 = 270 euros. 185 + 270 = 455 euros are there, and 500 - 455 = 45 euros are missing.

Q: A car uses 6 litres of petrol for 100 km. How much does it use for 350 km?
A: 350 km are 3.5 times as far, and 3.5 x 6 = 21 litres.

Q: A teacher marks 32 tests and needs 6 minutes for each. How long does it take her?
A: It takes 32 x 6 = 192 minutes, or 3 hours and 12 minutes.

Q: A puzzle has 1000 pieces. Ben puts in 85 pieces a day for 9 days. How many pieces are left?
A: He puts in 9 x 85 = 765 pieces, so 1000 - 765 = 235 pieces are left.

Q: A cook makes 18 litres of soup and fills bowls of 0.3 litres. How many bowls can he fill?
A: 18 / 0.3 = 60, so he can fill 60 bowls.

Q: A village had 2400 inhabitants. In a year 36 were born, 29 died and 58 moved away. How many live there now?
A: 2400 + 36 = 2436, and 2436 - 29 - 58 = 2349 live there now.

Q: A carpenter needs 5 screws for each of 4 legs of a table. How many screws does he need for 11 tables?
A: One table takes 5 x 4 = 20 screws, and 11 tables take 11 x 20 = 220 screws.

Q: A swimmer does 40 lengths of 25 m. How many kilometres are these?
A: 40 x 25 = 1000 m, that is 1 km.

Q: A magazine costs 5 euros at the kiosk. A year of 12 issues costs 48 euros by post. How much does one save?
A: At the kiosk 12 issues cost 12 x 5 = 60 euros, so one saves 60 - 48 = 12 euros.

Q: 7 buses with 52 seats each bring 340 fans to a match. How many seats stay empty?
A: The buses have 7 x 52 = 364 seats, so 364 - 340 = 24 seats stay empty.

Q: A jacket and trousers cost 135 euros. The jacket costs 45 euros more than the trousers. What do the trousers cost?
A: Without the 45 euros both would cost the same: 135 - 45 = 90, and 90 / 2 = 45 euros for the trousers.

Q: A dog eats 350 g of food a day. How many days does a sack of 7 kg last?
A: 7 kg are 7000 g, and 7000 / 350 = 20 days.

Q: A poster measures 60 cm by 90 cm. What is its area in square centimetres?
A: The area is 60 x 90 = 5400 square centimetres.

Q: Ivan has 64 stamps. He gives a quarter of them to Lea and 10 to Tom. How many does he keep?
A: A quarter is 64 / 4 = 16 stamps, and 64 - 16 - 10 = 38 stamps are kept.

Q: A staircase has 3 flights of 17 steps. Each step is 18 cm high. How high does it lead?
A: There are 3 x 17 = 51 steps, and 51 x 18 = 918 cm.

Q: A bank pays 3 per cent interest a year. How much interest does one get for 2500 euros in 2 years, if it is paid
   out each year?
A: In a year it is 2500 x 3 / 100 = 75 euros, and in 2 years 2 x 75 = 150 euros.

Q: A radio station plays 15 songs an hour, of 4 minutes each but for the 3 last, of 3 minutes. How long is the music?
A: 12 songs take 12 x 4 = 48 minutes and 3 songs 3 x 3 = 9 minutes, so the music is 48 + 9 = 57 minutes long.

Q: A sack holds 25 kg of sand. How many sacks does one need for 1.2 tonnes?
A: 1.2 tonnes are 1200 kg, and 1200 / 25 = 48 sacks.

Q: A hen lays 5 eggs a week. How many hens does one need for 60 eggs a week?
A: 60 / 5 = 12, so one needs 12 hens.

Q: A path is 72 m long. A lamp stands every 9 m, also at both ends. How many lamps are there?
A: There are 72 / 9 = 8 gaps, and one lamp more than gaps, so 8 + 1 = 9 lamps.

Q: A game costs 34 euros. Zoe has 19 euros and earns 5 euros for each lawn that she mows. How many lawns must she mow?
A: She lacks 34 - 19 = 15 euros, and 15 / 5 = 3 lawns.

Q: A train has 9 carriages of 68 seats. Three quarters of the seats are taken. How many people sit in it?
A: The train has 9 x 68 = 612 seats, and three quarters of 612 are 459.

Q: A brewery fills 30 crates of 20 bottles an hour. How many bottles does it fill in a shift of 7 hours?
A: In an hour it fills 30 x 20 = 600 bottles, and in 7 hours 7 x 600 = 4200 bottles.

Q: A photo is enlarged to three times its width of 13 cm and its height of 9 cm. What is its new size?
A: 3 x 13 = 39 and 3 x 9 = 27, so it is 39 cm wide and 27 cm high.

Q: A hiking group of 23 has 4 tents for 3 and the rest for 2 people. How many tents for 2 are needed?
A: 4 x 3 = 12 people sleep in the large tents. 23 - 12 = 11 are left, who need 6 tents for 2.

Q: An oven uses 2.5 kilowatt hours for a cake. One costs 0.32 euros. What does the power for 4 cakes cost?
A: 4 cakes take 4 x 2.5 = 10 kilowatt hours, and 10 x 0.32 = 3.20 euros.

Q: A warehouse gets 18 pallets of 40 boxes. 15 boxes are damaged. How many can be sold?
A: 18 x 40 = 720 boxes arrive, and 720 - 15 = 705 can be sold.

Q: A relay team runs 4 legs in 52, 49, 55 and 48 seconds. What is its time in minutes and seconds?
A: 52 + 49 + 55 + 48 = 204 seconds, that is 3 minutes and 24 seconds.

Q: A tree is 2.10 m tall and grows 35 cm a year. How tall is it in 6 years?
A: It grows 6 x 35 = 210 cm, or 2.10 m, and is 2.10 + 2.10 = 4.20 m tall.

Q: A club has 130 members who pay 60 euros a year. A fifth of them pay half. What does the club take in?
A: 130 / 5 = 26 members pay 30 euros, 26 x 30 = 780 euros. The other 104 pay 104 x 60 = 6240 euros, in total 7020
   euros.

Q: A bridge can bear 40 tonnes. Two trucks of 16.5 tonnes are on it. How much more can it bear?
A: The trucks weigh 2 x 16.5 = 33 tonnes, so it can bear 40 - 33 = 7 tonnes more.
"""
