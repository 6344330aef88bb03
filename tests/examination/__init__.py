"""Images and questions by an independent hand, and the accuracy of the bundled model on them.

The drawings share no code with the training package, and were written without a look at how it
draws. The vocabulary is the model's own claim: four shapes, six colours, plain questions.
"""
