"""Words of the tiny random model: each is one token of it, so that its random text looks like tasks."""

_TEXT = """
a about after all an and answer any area article as at author back between big book box build calculate can capital
car change check choose city class clean code color compare convert cook could count country create current data date
day define describe design difference do does draw each easy email every example explain fact feasible file find
first five flight flower for four from function future game garden give good green group guess have help history home
hour house how idea if image in infeasible into is it item job know language last left letter line list live long look
make many map match me meal mean message minute model money month most move music my name near new next night no now
number of old on one open or order other our out page paint paper part people person phone photo piece place plan
plant play please poem price print problem question quick rain read real recipe red report right river road room run
say school score send sentence set short show simple small solve some song sort sound state step stock store story
street sum table take task teach tell test text than that the their then there they thing think this three time to
today together tomorrow topic town train translate tree turn two under until up use value verdict very video view visit
wait walk water way weather week what when where which white who why will with word work world write year yes you your
"""

WORDS = tuple(_TEXT.split())
"""In alphabetical order; fixed, because the tiny model's tokenizer and weights derive from it."""
