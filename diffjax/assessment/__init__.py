"""What a run is worth: samples scored and looked for in the training data, likelihoods, a plan for few network calls.

evaluation holds the mathematics and the pictures; here runs, data and networks of features meet it.

    features, encoders, classifier      what samples are looked at through
    sets                                what is scored: drawn, or stored
    run                                 a run that is judged, and the passport of what is found
    scores, copies, heldout, plans      the commands of evaluate.py
"""
