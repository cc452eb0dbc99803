"""Comparison of candidate models on the user's images: does pretraining help, and how sure is the answer?"""
