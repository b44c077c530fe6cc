"""The local stack of `callboard up`: embedded servers, the processes, and who watches them."""
