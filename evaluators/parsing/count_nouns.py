"""Words that may stand behind a number as what it counts: a closed list, as `5 (wrong)` and `5 more` are not 5.

Words that the question or the gold uses count as well; see `evaluators.comparison.quantities`.
"""

from __future__ import annotations

_NOUNS = """
beat heartbeat calorie
account acorn acre act activity actor address adult adventure afternoon airplane album alien altitude animal answer
ant apple apricot apron area arm arrangement arrow article artist aunt award axe baby bacon bag bagel bakery ball
balloon banana band bandage bar barn barrel base basket basketball bat batch battery beach bead beam bean bear bed
bedroom bee beetle bell belt bench berry bicycle bike bill bin bird birthday biscuit bite block blouse blueberry
board boat bolt bomb bone book booklet bookmark boot bottle bouquet bow bowl box boy bracelet branch bread breath
brick bridge broccoli brother brownie brush bubble buck bucket bug building bulb bullet bun bunch bundle burger bus
bush business butter butterfly button cabbage cabin cabinet cake calculator calf camel camera camp camper can candle
candy cap car card carnation carrot cart carton case cat caterpillar cave cell center centimeter cereal chain chair
chalk chance change channel chapter character cheese cherry chess chest chicken child chip chocolate choice church
circle city clam class classmate classroom clerk client clip clock cloth clothes cloud clover clown club coach coat
cob coconut code coin collection color column combination comic committee company computer concert cone container
contestant cookie copy corn corner costume couch count country couple course court cousin cow crab cracker cranberry
crate crayon cricket crop crow cube cubicle cucumber cupboard cupcake curtain customer cut cycle daisy dancer data
date daughter day deck deer delivery dentist desk dessert diagonal diamond dice die digit dinner dinosaur dish disk
distribution divisor doctor dog doll dolphin donkey donut door dot doughnut dragon dragonfly drawer drawing dress
drink driver drop drum duck duckling dvd eagle ear earring edge egg element elephant elevator elf employee engine
envelope eraser error essay event exam exercise eye face factor fairy family fan farm farmer father feather feet
fence field figure file film finger fire firefighter firework fish flag flamingo flight flip floor florist flour
flower fly folder food foot football forest fork form fort fox fraction frame franc friend frog fruit function
gallon game gap garage garden gate geese gem gerbil ghost giant gift giraffe girl glass globe glove goal goat gold
goldfish goodie goose grader grain grandchild grandchildren grape grapefruit grass group guest guitar gum guy gym
hair hallway ham hamburger hamster hand handful handshake hat head heart heifer helicopter helmet hen herd hike
hiker hippo hole holiday home homerun homework horse hose hospital hotdog hotel hour house ice icicle igloo image
inch infant inning insect integer intersection invitation island item jacket jar jellybean jet job jug juice jump
kangaroo key kid king kite kitten knife knight knot koala krona lab ladder lady ladybug lake lamb lamp land lap
laptop lawn lawyer layer leaf leaves leg lego lemon lemonade length lesson letter level library light lightbulb lily
lime line lion list lizard loaf loaves lobster lock locker log lollipop lot lunch lunchbox machine magazine magnet
mail man mango map marathon marble mark marker market marshmallow mask mat match meal meat medal member men message
method mice milk mint minute mirror mistake model mom money monkey monster moon mosquito moth mother motorcycle
mountain mouse mouth movie muffin mug mushroom musician nail name napkin neck necklace needle neighbor nest net
newspaper nickel night node nose note notebook noun novel number nurse nut object octopus office onion opening
orange orchid order ordering organ ostrich outcome oven owl owner ox oxen oyster pack package packet packing pad
page pail paint painting pair palm pan pancake panda pansy pant paper paperclip parade parent park parrot part
participant partner party passenger password pasta pastries pastry patch path patient pattern paw pea peach peacock
peanut pear pebble pen pencil penguin penny people pepper permutation person peso pet petal phone photo photograph
piano pickle picture pie piece pig pigeon pile pill pillow pilot pin pineapple pinecone pint pipe pirate pit pizza
plan plane planet plant plate play player plum pocket poem point pole police pond pony pool popcorn popsicle
possibility post postcard poster pot potato pouch prime prince princess printer prize problem product program
project pumpkin pupil puppy purse puzzle quarter quest question quilt quiz rabbit raccoon race racer rack radish
raffle raisin ranger raspberry rat rate ray record rectangle region rep restaurant result revolution ribbon rice
rider ring river road robin robot rock rocket roll roller room root rope rose rotation round route row ruble rug
ruler run runner sack salad sale salesman salmon sandwich saucer sausage scallop scarf scarves school scientist
scissor scoop scout screen screw sculpture sea seagull seal seashell seat section seed selection sentence sequence
serving session set shampoo shape share shark sheep sheet shekel shelf shell shelves ship shirt shoe shop shot
shovel shrimp shrub side sign singer sink sister skater skirt skittle slice slide slipper slot snack snail snake
snowball snowflake snowman soap sock soda sofa soldier solution son song sound soup space spectator spider spinner
spoon spoonful spot square squirrel stack stadium staff stage stair stamp stand star starfish state station statue
stem step stick sticker stone stool stop store story strategy straw strawberry street string strip student subject
subset suit suitcase sunflower surfer swan sweater sweet swimmer symbol table taco tadpole tail talent tangerine
tank tape tart task taxi teacher team teen teenager teeth telephone television tennis tent term test text theater
thing throw ticket tie tiger tile time tire toad toast toddler toe token tomato tongue tool tooth toothbrush
toothpaste toothpick top topping toss toucan touchdown tourist towel tower town toy track tractor trailer train tray
tree triangle tricycle trip trout truck tub tube tulip tuna turkey turn turtle tutor twin ukulele umbrella uncle
unicorn uniform unit utensil value van vase vegetable vehicle vendor vertex vertices video view village violet
violin visit visitor voice volunteer vote voter vowel wagon waist waiter waitress walk wall wallet walnut watch
water watermelon wave way wedding weed week weight whale wheel whistle wife wing winner wire wish wolf wolves woman
women word worker workout worm wrap wreath wrench yard yogurt zebra zero zombie zoo
"""
_ADJECTIVES = """
bad baked baseball big black blank blue boiled bouncy broken brown christmas clean cold colored consecutive cubic
daily different dirty distinct distinguishable double dry easter electric empty english equal extra fall female
fishing french fresh fried frozen full golden golf good grade gray green grey gummy halloween high history hot
identical jelly large lead little long lottery male math metal middle monthly new old ordered pink plain plastic
possible purple reading real red regular science short silver similar single small soccer spanish spotted spring
striped stuffed summer tall tiny total trading triple unordered valid vanilla weekly wet white whole wide winter
wooden yellow young
"""
COUNTED = frozenset(_NOUNS.split()) | frozenset(_ADJECTIVES.split())
